//! Oracles: packages that `rt` does not use and whose results are compared with its own. They need
//! root. `make test-oracles` runs them with the program in `RT`.

#[cfg(test)]
#[allow(dead_code, reason = "the integration tests use what these tests do not")]
#[path = "../harness/disk.rs"]
mod disk;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod paths;
#[cfg(test)]
#[allow(dead_code, reason = "the integration tests use what these tests do not")]
#[path = "../harness/temp.rs"]
mod temp;

#[cfg(test)]
use temp::TempDir;
