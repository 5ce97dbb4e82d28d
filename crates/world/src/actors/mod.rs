//! All road users, and ordinary traffic.

pub(crate) mod blueprints;
pub(crate) mod follower;
pub(crate) mod list;
pub(crate) mod traffic;
