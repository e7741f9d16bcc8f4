//! Eigenvalues by rank as an SVG: a bar of twice the residual around each, on a logarithmic axis of their magnitude.

use crate::curvature::Eigenvalue;
use plotters::prelude::*;

/// The colours of positive and negative eigenvalues, told apart also by filled and hollow dots.
const POSITIVE: RGBColor = RGBColor(0, 90, 160);
const NEGATIVE: RGBColor = RGBColor(190, 80, 0);

/// The drawing as text.
pub fn svg(title: &str, eigenvalues: &[Eigenvalue]) -> Result<String, String> {
    let mut text = String::new();
    draw(SVGBackend::with_string(&mut text, (900, 560)).into_drawing_area(), title, eigenvalues)
        .map_err(|error| error.to_string())?;
    Ok(text)
}

fn draw(
    area: DrawingArea<SVGBackend, plotters::coord::Shift>,
    title: &str,
    eigenvalues: &[Eigenvalue],
) -> Result<(), Box<dyn std::error::Error>> {
    area.fill(&WHITE)?;
    let magnitudes: Vec<f64> = eigenvalues.iter().map(|found| found.value.abs()).filter(|size| *size > 0.0).collect();
    let largest = magnitudes.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let smallest = magnitudes.iter().copied().fold(largest, f64::min).max(largest * 1e-12);
    let range = (smallest / 1.6..largest * 1.6).log_scale();
    let last = eigenvalues.len().max(1) as f64;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 24))
        .margin(18)
        .x_label_area_size(48)
        .y_label_area_size(80)
        .build_cartesian_2d(0.5..last + 0.5, range)?;
    let mut mesh = chart.configure_mesh();
    mesh.max_light_lines(0).x_labels(10.min(eigenvalues.len() + 1)).label_style(("sans-serif", 17));
    mesh.axis_desc_style(("sans-serif", 18)).x_desc("rank").y_desc("magnitude of the eigenvalue");
    mesh.x_label_formatter(&|rank| format!("{rank:.0}")).y_label_formatter(&|size| format!("{size:.1e}")).draw()?;
    let floor = smallest / 1.6;
    for (index, Eigenvalue { value, residual }) in eigenvalues.iter().enumerate() {
        let (rank, size) = (index as f64 + 1.0, value.abs().max(floor));
        let color = if *value < 0.0 { NEGATIVE } else { POSITIVE };
        let ends = [(size - residual).max(floor), (size + residual).min(largest * 1.6)];
        let bar = ends.map(|end| (rank, end));
        chart.draw_series(std::iter::once(PathElement::new(bar, color.stroke_width(2))))?;
        let style = if *value < 0.0 { color.stroke_width(2) } else { color.filled() };
        chart.draw_series(std::iter::once(Circle::new((rank, size), 5, style)))?;
    }
    let legend = if eigenvalues.iter().any(|found| found.value < 0.0) { "hollow: negative" } else { "" };
    area.draw(&Text::new(legend, (760, 60), ("sans-serif", 16)))?;
    area.present()?;
    Ok(())
}
