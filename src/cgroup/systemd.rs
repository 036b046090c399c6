//! Groups that systemd makes: a scope for each container, `linux.cgroupsPath` being
//! `slice:prefix:name`. Within the scope everything is ours (`Delegate=yes`), so that systemd is
//! asked for no more than its start, its limits and its end.
//!
//! | file | what is in it |
//! |---|---|
//! | `unit` `scope` | the scope of a container, and its name |
//! | `bus` `wire` | a client of D-Bus: six methods, one signal |
//! | `properties` | limits as properties |
//! | `annotation` | properties that the configuration names itself |

mod annotation;
mod bus;
mod properties;
mod scope;
mod unit;
mod wire;

pub(crate) use annotation::PREFIX as UNIT_PROPERTIES;
pub(super) use scope::scope;
pub(super) use unit::Unit;
