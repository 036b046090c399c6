//! `rt netns`, in a host, an internet and a neighbourhood that each test makes for itself.

mod attacks;
mod firewall;
mod load;
mod members;
mod names;
mod networks;
mod ports;
mod spec;
mod sweep;
mod world;
