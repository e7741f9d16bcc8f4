//! tmp
mod fused;
mod kernel;
mod memory;
mod plan;
mod vector;
pub struct Plan(plan::Plan);
pub fn plan(program: &gauntlet_plugin_api::backend::Program) -> Plan { let p = Plan(plan::Plan::new(program).unwrap()); for s in &p.0.steps { eprintln!("{:?} <- {:?} {:?} {:?} {:?}", s.target, s.action, s.a, s.b, s.c); } p }
pub fn bench(plan: &Plan, lists: &mut [gauntlet_plugin_api::backend::FusedList<'_, tch::Tensor>]) {
    fused::in_place::<f32>(&plan.0, lists).unwrap();
}
