//! tmp
mod fused;
mod kernel;
mod memory;
mod plan;
mod vector;
pub use plan::Plan;
pub fn plan(program: &gauntlet_plugin_api::backend::Program) -> Plan { plan::Plan::new(program).unwrap() }
pub fn bench(plan: &Plan, lists: &mut [gauntlet_plugin_api::backend::FusedList<'_, tch::Tensor>]) {
    fused::in_place::<f32>(plan, lists).unwrap();
}
