mod corpus;
mod snapshots;
