//! Curves as SVG, drawn by plotters, with colours and dashes left to the page's style sheet.
//!
//! plotters knows neither classes nor dashes nor the reader's background. It draws in stand-in colours, which are then
//! replaced by classes; text and axes take the page's colour of text.

use super::series::Points;
use crate::error::{Exit, Fault, Result};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::ops::Range;

/// Units of text height.
const TEXT: u32 = 28;
/// Curves with at most this many points show each of them.
const MOST_DOTS: usize = 60;
/// Axes span at least this much, the vertical one relative to its losses: plotters finds no ticks in less.
const LEAST_RANGE: f64 = 1e-6;
/// Stand-in for the page's colour of text.
const INK: RGBColor = RGBColor(1, 1, 1);

/// Units of a drawing, width and height; the page scales it to the width there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Over half of the page.
    Half,
    /// Over the whole page.
    Whole,
}

impl Size {
    fn units(self) -> (u32, u32) {
        match self {
            Self::Half => (1100, 700),
            Self::Whole => (2200, 860),
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Half => "half",
            Self::Whole => "whole",
        }
    }
}

/// How a curve is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stroke {
    /// The raw values behind an average: thin and pale.
    Pale,
    /// The curve that is to be read.
    Strong,
}

/// One curve of the run at `index`.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Place of its run, which decides colour and dashes.
    pub index: usize,
    /// How it is drawn.
    pub stroke: Stroke,
    /// Its points with rising x; those that are not finite are left out.
    pub points: Points,
}

/// A plot of losses.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Its size.
    pub size: Size,
    /// Quantity and unit of the horizontal axis.
    pub x: String,
    /// Where the horizontal axis begins.
    pub left: f64,
    /// How its numbers are written.
    pub x_words: fn(f64) -> String,
    /// Quantity and unit of the vertical axis.
    pub y: String,
    /// How its numbers are written.
    pub y_words: fn(f64) -> String,
    /// Losses above this are drawn at the upper edge.
    pub top: f64,
    /// Its curves, later ones over earlier ones.
    pub curves: Vec<Curve>,
}

impl Curve {
    /// Class of a run's curves of this stroke.
    pub fn class(stroke: Stroke, index: usize) -> String {
        match stroke {
            Stroke::Pale => format!("pale run-{index}"),
            Stroke::Strong => format!("strong run-{index}"),
        }
    }

    fn finite(&self) -> impl Iterator<Item = (f64, f64)> {
        self.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite())
    }

    fn stand_in(&self) -> RGBColor {
        let [high, low] = (self.index as u16).to_be_bytes();
        RGBColor(if self.stroke == Stroke::Pale { 2 } else { 3 }, high, low)
    }
}

impl Chart {
    /// The plot as an `svg` element that fills its parent's width; `title` says what it shows to those who do not see it.
    ///
    /// # Errors
    ///
    /// [`Exit::Internal`] when it cannot be drawn.
    pub fn svg(&self, title: &str) -> Result<String> {
        let mut text = String::new();
        let failed = |error: String| Fault::new(Exit::Internal, format!("a plot cannot be drawn: {error}"));
        let (width, height) = self.size.units();
        self.draw(&SVGBackend::with_string(&mut text, (width, height)).into_drawing_area()).map_err(failed)?;
        let opening = format!("<svg width=\"{width}\" height=\"{height}\"");
        let (class, title) = (self.size.class(), super::page::escaped(title));
        let opened = format!("<svg class=\"{class}\" role=\"img\" aria-label=\"{title}\"");
        Ok(self.themed(&text.replacen(&opening, &opened, 1)))
    }

    fn draw(&self, area: &DrawingArea<SVGBackend, Shift>) -> Result<(), String> {
        let text = ("sans-serif", TEXT).into_font().color(&INK);
        let (x_range, y_range) = (self.x_range(), self.y_range());
        let top = y_range.end;
        let mut chart = ChartBuilder::on(area)
            .margin(TEXT / 2)
            .margin_right(TEXT)
            .x_label_area_size(3 * TEXT)
            .y_label_area_size(4 * TEXT)
            .build_cartesian_2d(x_range, y_range)
            .map_err(|error| error.to_string())?;
        let x_words = |x: &f64| (self.x_words)(*x);
        let y_words = |y: &f64| (self.y_words)(*y);
        let mut mesh = chart.configure_mesh();
        mesh.max_light_lines(0).bold_line_style(INK.mix(0.15)).axis_style(INK.mix(0.6));
        mesh.x_labels(7).y_labels(7).label_style(text.clone()).axis_desc_style(text).x_desc(&self.x).y_desc(&self.y);
        mesh.x_label_formatter(&x_words).y_label_formatter(&y_words);
        mesh.draw().map_err(|error| error.to_string())?;
        for curve in &self.curves {
            let points = || curve.finite().map(|(x, y)| (x, y.min(top)));
            let width = if curve.stroke == Stroke::Pale { 2 } else { 5 };
            let line = LineSeries::new(points(), curve.stand_in().stroke_width(width));
            chart.draw_series(line).map_err(|error| error.to_string())?;
            if curve.stroke == Stroke::Strong && curve.points.len() <= MOST_DOTS {
                let dots = points().map(|at| Circle::new(at, 7, curve.stand_in().filled()));
                chart.draw_series(dots).map_err(|error| error.to_string())?;
            }
        }
        area.present().map_err(|error| error.to_string())
    }

    /// From the left to the largest x.
    fn x_range(&self) -> Range<f64> {
        let largest = self.curves.iter().flat_map(Curve::finite).map(|(x, _)| x).fold(self.left, f64::max);
        self.left..if largest > self.left + LEAST_RANGE { largest } else { self.left + 1.0 }
    }

    /// Around all losses up to the top, with a little air.
    fn y_range(&self) -> Range<f64> {
        let losses = || self.curves.iter().flat_map(Curve::finite).map(|(_, y)| y.min(self.top));
        let (low, high) = (losses().fold(f64::INFINITY, f64::min), losses().fold(f64::NEG_INFINITY, f64::max));
        if low > high {
            return 0.0..1.0;
        }
        let least = LEAST_RANGE * high.abs().max(1.0);
        let air = if high - low > least { 0.04 * (high - low) } else { 0.05 * high.abs().max(1.0) };
        low - air..high + air
    }

    /// Classes in place of stand-in colours.
    fn themed(&self, svg: &str) -> String {
        let mut themed = replace_color(svg, INK, None);
        for curve in &self.curves {
            themed = replace_color(&themed, curve.stand_in(), Some(&Curve::class(curve.stroke, curve.index)));
        }
        themed
    }
}

fn replace_color(svg: &str, RGBColor(red, green, blue): RGBColor, class: Option<&str>) -> String {
    let attribute = |name: &str| format!("{name}=\"#{red:02X}{green:02X}{blue:02X}\"");
    let replacement = |name: &str| match class {
        Some(class) => format!("class=\"{name} {class}\""),
        None => format!("{name}=\"currentColor\""),
    };
    let stroked = svg.replace(&attribute("stroke"), &replacement("stroke"));
    stroked.replace(&attribute("fill"), &replacement("fill"))
}
