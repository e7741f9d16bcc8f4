//! tmp
mod fused;
mod kernel;
mod memory;
mod plan;
pub fn bench(
    program: &gauntlet_plugin_api::backend::Program,
    lists: &mut [gauntlet_plugin_api::backend::FusedList<'_, tch::Tensor>],
) {
    let plan = plan::Plan::new(program).unwrap();
    if std::env::var("SHOW").is_ok() {
        eprintln!("{plan:#?}");
    }
    fused::in_place::<f32>(&plan, lists).unwrap();
}
