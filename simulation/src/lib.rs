//! A fleet in a world that is made of chance: everything that can go wrong does, and the same seed is the same world.
//!
//! The replicas are real: consensus, its log and snapshots, the state, the executor, health. Simulated is what is around them:
//! clocks, disks ([`disk`]), the network ([`net`]), the cloud ([`outside`]) and its agents ([`agents`]), people ([`workload`]). A
//! replica is a process of its own ([`process`]), so that it can be killed with everything in it.
//!
//! Deliberately *not* here: gRPC, TLS, RocksDB, Ruby. Real processes have their own proof (`chaos-tests`).
//!
//! Invariants: one thread; nothing reads a real clock or real chance. What Rust's standard library and tokio draw, they draw
//! from the operating system's `getrandom`, which [`child`] gives the seed's numbers.
//!
//! Read next: [`run`] (a world from its beginning to its judgement), [`world`], [`invariants`], [`nemesis`].

pub mod agents;
pub mod chance;
pub mod child;
pub mod clock;
pub mod disk;
pub mod invariants;
pub mod judge;
pub mod nemesis;
pub mod net;
pub mod outside;
pub mod parts;
pub mod peers;
pub mod process;
pub mod replica;
pub mod run;
pub mod services;
pub mod streams;
pub mod trace;
pub mod workload;
pub mod world;
