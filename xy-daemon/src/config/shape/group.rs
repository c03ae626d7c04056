//! The shape of `Supervisor(..)`.

use serde::Deserialize;
use xy_actors::spec::{Order, Strategy};

use super::{DependsShape, DurationText, ServerShape};

/// `Supervisor(..)` as written.
#[derive(Debug, Deserialize)]
#[serde(rename = "Supervisor", deny_unknown_fields)]
pub(in crate::config) struct GroupShape {
    #[serde(default)]
    pub(in crate::config) name: Option<String>,
    #[serde(default)]
    pub(in crate::config) strategy: StrategyShape,
    #[serde(default)]
    pub(in crate::config) order: OrderShape,
    #[serde(default)]
    pub(in crate::config) intensity: IntensityShape,
    #[serde(default)]
    pub(in crate::config) depends_on: DependsShape,
    #[serde(default)]
    pub(in crate::config) autostart: Option<bool>,
    pub(in crate::config) children: Vec<ServerShape>,
}

/// `intensity: (..)` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename = "Intensity", deny_unknown_fields, default)]
pub(in crate::config) struct IntensityShape {
    pub(in crate::config) restarts: Option<i64>,
    pub(in crate::config) period: Option<DurationText>,
}

/// Whom a crash in a group takes along.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename = "Strategy")]
pub(in crate::config) enum StrategyShape {
    #[default]
    OneForOne,
    OneForAll,
    RestForOne,
}

impl From<StrategyShape> for Strategy {
    fn from(strategy: StrategyShape) -> Self {
        match strategy {
            StrategyShape::OneForOne => Self::OneForOne,
            StrategyShape::OneForAll => Self::OneForAll,
            StrategyShape::RestForOne => Self::RestForOne,
        }
    }
}

/// Whether a group's children start one by one or together.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename = "Order")]
pub(in crate::config) enum OrderShape {
    #[default]
    Ordered,
    Concurrent,
}

impl From<OrderShape> for Order {
    fn from(order: OrderShape) -> Self {
        match order {
            OrderShape::Ordered => Self::Ordered,
            OrderShape::Concurrent => Self::Concurrent,
        }
    }
}
