//! Oracles: packages that `rt` does not use and whose results are compared with its own. They need
//! root. `make test-oracles` runs them with the program in `RT`.

#[cfg(test)]
mod limits;
#[cfg(test)]
mod paths;
#[cfg(test)]
mod temp;
