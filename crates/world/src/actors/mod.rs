//! Everybody on the road but the ego vehicle, and ordinary traffic.

pub(crate) mod cast;
pub(crate) mod catalogue;
pub(crate) mod follower;
pub(crate) mod traffic;
