//! Everybody on the road but the ego vehicle, and ordinary traffic.

pub(crate) mod catalogue;
pub(crate) mod follower;
pub(crate) mod list;
pub(crate) mod traffic;
