//! `rt netns`, in a host, an internet and a neighbourhood that each test makes for itself.

mod aims;
mod attacks;
mod confine;
mod firewall;
mod load;
mod members;
mod names;
mod networks;
mod ports;
mod records;
mod spec;
mod sweep;
mod world;
