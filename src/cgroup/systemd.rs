//! Cgroups that systemd makes: a scope for each container, for which `linux.cgroupsPath` is
//! `slice:prefix:name`. `rt` controls everything within the scope (`Delegate=yes`), so systemd is
//! asked only to start it, to set its limits and to stop it.
//!
//! | file | what is in it |
//! |---|---|
//! | `unit` `scope` | the scope of a container, and its name |
//! | `bus` `wire` | a D-Bus client: six methods, one signal |
//! | `properties` | limits as unit properties |
//! | `annotation` | unit properties that the configuration names in annotations |

mod annotation;
mod bus;
mod properties;
mod scope;
mod unit;
mod wire;

pub use annotation::PREFIX as UNIT_PROPERTIES;
pub(super) use scope::scope;
pub use unit::UnitConnection;
pub(super) use unit::{Unit, start_properties};
pub use wire::Property;
