//! Plots of few kinds, each as SVG and as PNG.

use std::io;
use std::path::{Path, PathBuf};

use kuva::backend::png::PngBackend;
use kuva::backend::svg::SvgBackend;
use kuva::plot::{BarPlot, Histogram, LegendPosition, LinePlot, ScatterPlot};
use kuva::render::layout::{Layout, TickFormat};
use kuva::render::plots::Plot;
use kuva::render::render::render_multiple;
use shardproof_common::files;
use std::sync::Arc;
use thiserror::Error;

/// Colours that people with colour-blindness can tell apart (Wong, Nature Methods 2011), without the yellow, which is too
/// light for lines.
const COLOURS: [&str; 7] = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"];
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
/// Pixels of the PNG for each unit of the SVG.
const SCALE: f32 = 2.0;

/// Why a plot could not be written.
#[derive(Debug, Error)]
pub enum PlotError {
    /// There is nothing to show.
    #[error("the plot `{0}` has no points")]
    Empty(String),
    /// The pixels could not be made.
    #[error("the plot `{name}`: {reason}")]
    Pixels {
        /// Which plot.
        name: String,
        /// Why.
        reason: String,
    },
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// How values lie along an axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// Evenly, from 0.
    #[default]
    Linear,
    /// By their logarithm; values that aren't positive are left out.
    Logarithmic,
}

/// One line of a plot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its points; more than one are joined.
    pub points: Vec<(f64, f64)>,
    /// What is projected or taken from elsewhere is dashed; what was measured is not.
    pub dashed: bool,
    /// Of the points, those measured a single time: their marks are hollow.
    pub once: Vec<(f64, f64)>,
    /// Place among the colours; that of the line among all lines if none.
    pub colour: Option<usize>,
}

/// Lines over numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LineChart {
    /// What is shown.
    pub title: String,
    /// What runs along the bottom, with its unit.
    pub x: String,
    /// What runs upwards, with its unit.
    pub y: String,
    /// Along the bottom.
    pub x_scale: Scale,
    /// Upwards.
    pub y_scale: Scale,
    /// The lines.
    pub series: Vec<Series>,
}

/// Bars in groups, one of each group for every series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BarChart {
    /// What is shown.
    pub title: String,
    /// What runs upwards, with its unit.
    pub y: String,
    /// Upwards.
    pub y_scale: Scale,
    /// Names of the bars of a group.
    pub series: Vec<String>,
    /// Each group's name with one value for each series.
    pub groups: Vec<(String, Vec<f64>)>,
}

/// How often values occur.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistogramChart {
    /// What is shown.
    pub title: String,
    /// What runs along the bottom, with its unit.
    pub x: String,
    /// What runs upwards.
    pub y: String,
    /// The values.
    pub values: Vec<f64>,
}

impl LineChart {
    /// Writes `NAME.svg` and `NAME.png` into `directory`.
    ///
    /// # Errors
    /// When there is nothing to show, or a file cannot be written.
    pub fn write(&self, directory: &Path, name: &str) -> Result<(), PlotError> {
        let shown = |&(x, y): &(f64, f64)| {
            let fits = |value: f64, scale| value.is_finite() && (scale == Scale::Linear || value > 0.0);
            fits(x, self.x_scale) && fits(y, self.y_scale)
        };
        let mut drawn: Vec<(f64, f64)> = Vec::new();
        let mut plots: Vec<Plot> = Vec::new();
        for (index, series) in self.series.iter().enumerate() {
            let colour = COLOURS[series.colour.unwrap_or(index) % COLOURS.len()];
            let points: Vec<(f64, f64)> = series.points.iter().filter(|point| shown(point)).copied().collect();
            if points.is_empty() {
                continue;
            }
            drawn.extend(&points);
            let line = LinePlot::new().with_data(points.clone()).with_color(colour).with_stroke_width(2.0);
            let line = if series.dashed { line.with_dashed() } else { line };
            plots.push(Plot::Line(line.with_legend(series.name.clone())));
            let (hollow, solid): (Vec<_>, Vec<_>) = points.into_iter().partition(|point| series.once.contains(point));
            let marks = |points| ScatterPlot::new().with_data(points).with_color(colour).with_size(4.0);
            let hollow = marks(hollow).with_marker_opacity(0.0).with_marker_stroke_width(2.0);
            let kinds = [marks(solid), hollow].into_iter().filter(|marks| !marks.data.is_empty());
            plots.extend(kinds.map(Plot::Scatter));
        }
        if plots.is_empty() {
            return Err(PlotError::Empty(name.to_owned()));
        }
        let layout = layout(&plots, &self.title).with_x_label(&self.x).with_y_label(&self.y);
        let layout = match self.x_scale {
            Scale::Linear => match self.most_counted() {
                Some(most) => layout.with_x_axis_min(0.0).with_x_axis_max(most + 1.0).with_x_tick_step(1.0),
                None => layout.with_x_axis_min(0.0),
            },
            Scale::Logarithmic => {
                let (least, most) = decades(drawn.iter().map(|point| point.0));
                layout.with_log_x().with_x_axis_min(least).with_x_axis_max(most)
            }
        };
        let layout = match self.y_scale {
            Scale::Linear => layout.with_y_axis_min(0.0),
            Scale::Logarithmic => {
                let (least, most) = decades(drawn.iter().map(|point| point.1));
                layout.with_log_y().with_y_axis_min(least).with_y_axis_max(most)
            }
        };
        let format = |scale| if scale == Scale::Linear { TickFormat::Auto } else { short_ticks() };
        let layout = layout.with_x_tick_format(format(self.x_scale)).with_y_tick_format(format(self.y_scale));
        render(plots, layout, directory, name)
    }
}

impl LineChart {
    /// The largest of the numbers along the bottom where they count few things, so that no tick lies between two.
    fn most_counted(&self) -> Option<f64> {
        let numbers = || self.series.iter().flat_map(|series| &series.points).map(|point| point.0);
        let most = numbers().fold(0.0, f64::max);
        (most <= 16.0 && numbers().all(|number| number.fract() == 0.0)).then_some(most)
    }
}

/// Ends of a logarithmic axis: powers of ten around all values, and room for the mark of one that is near such an end.
fn decades(values: impl Iterator<Item = f64>) -> (f64, f64) {
    /// An axis is cut at its end, and so would be half of a mark.
    const ROOM: f64 = 1.25;
    let (least, most) = values.fold((f64::MAX, f64::MIN_POSITIVE), |(low, high), x| (low.min(x), high.max(x)));
    let (low, high) = (10f64.powf(least.log10().floor()), 10f64.powf(most.log10().ceil()));
    // A single value on a power of ten still has an axis of some length.
    let high = if low < high { high } else { low * 10.0 };
    (if least < low * ROOM { low / ROOM } else { low }, if most > high / ROOM { high * ROOM } else { high })
}

impl BarChart {
    /// Writes `NAME.svg` and `NAME.png` into `directory`.
    ///
    /// # Errors
    /// When there is nothing to show, or a file cannot be written.
    pub fn write(&self, directory: &Path, name: &str) -> Result<(), PlotError> {
        if self.groups.is_empty() || self.series.is_empty() {
            return Err(PlotError::Empty(name.to_owned()));
        }
        let mut bars = BarPlot::new();
        for (group, values) in &self.groups {
            let coloured = values.iter().zip(COLOURS.iter().cycle()).map(|(&value, &colour)| (value, colour));
            bars = bars.with_group(group.clone(), coloured.collect::<Vec<_>>());
        }
        let bars = bars.with_legend(self.series.iter().map(String::as_str).collect());
        let plots = vec![Plot::Bar(bars)];
        let layout = layout(&plots, &self.title).with_y_label(&self.y);
        let layout = match self.y_scale {
            Scale::Linear => layout,
            Scale::Logarithmic => {
                let values = self.groups.iter().flat_map(|(_, values)| values);
                let least = values.copied().filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
                layout.with_log_y().with_y_axis_min(foot(least)).with_y_tick_format(short_ticks())
            }
        };
        render(plots, layout, directory, name)
    }
}

/// Where bars on a logarithmic axis begin: the power of ten that leaves the least of them a visible height.
fn foot(least: f64) -> f64 {
    if least.is_finite() { 10f64.powf((least / 2.0).log10().floor()) } else { 1.0 }
}

impl HistogramChart {
    /// Writes `NAME.svg` and `NAME.png` into `directory`.
    ///
    /// # Errors
    /// When there is nothing to show, or a file cannot be written.
    pub fn write(&self, directory: &Path, name: &str) -> Result<(), PlotError> {
        let values: Vec<f64> = self.values.iter().copied().filter(|value| value.is_finite()).collect();
        if values.is_empty() {
            return Err(PlotError::Empty(name.to_owned()));
        }
        let (range, width) = bins(&values);
        let count = ((range.1 - range.0) / width).round() as usize;
        let histogram = Histogram::new().with_data(values).with_range(range).with_bins(count).with_color(COLOURS[0]);
        let plots = vec![Plot::Histogram(histogram)];
        let layout = layout(&plots, &self.title).with_x_label(&self.x).with_y_label(&self.y);
        let step = round_up((range.1 - range.0) / 8.0).max(width);
        let ticks = TickFormat::Custom(Arc::new(move |value| multiple_of(step, value)));
        let layout = layout.with_x_tick_step(step).with_x_tick_format(ticks);
        render(plots, layout, directory, name)
    }
}

/// Ends and width of a histogram's bars: about the square root of the number of values of them, at round places.
fn bins(values: &[f64]) -> ((f64, f64), f64) {
    let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(low, high), &x| (low.min(x), high.max(x)));
    // A single value still has a bar of some width.
    let spread = if low < high { high - low } else { low.abs().max(1.0) };
    let width = round_up(spread / (values.len() as f64).sqrt().ceil().clamp(8.0, 60.0));
    let (first, last) = ((low / width).floor(), (high / width).floor() + 1.0);
    ((first * width, last * width), width)
}

/// The least of 1, 2 or 5 times a power of ten that is not below `value`, which is greater than 0.
fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let fits = |factor: &&f64| **factor * power >= value;
    [1.0, 2.0, 5.0].iter().find(fits).copied().unwrap_or(10.0) * power
}

/// A tick at a multiple of `step` without the error of its sum: `-0.15`, `6e-4`.
fn multiple_of(step: f64, value: f64) -> String {
    let near = (value / step).round() * step;
    // Two digits more than the step's one tell all multiples apart that fit an axis.
    let short = format!("{near:.3e}").parse().unwrap_or(near);
    if short != 0.0 && step < 1e-3 { format!("{short:e}") } else { format!("{}", short + 0.0) }
}

fn layout(plots: &[Plot], title: &str) -> Layout {
    Layout::auto_from_plots(plots)
        .with_title(title)
        .with_width(WIDTH)
        .with_height(HEIGHT)
        .with_legend_position(LegendPosition::OutsideRightTop)
}

/// Ticks of logarithmic axes: `0.01`, `10`, `1k`, `10M`.
fn short_ticks() -> TickFormat {
    TickFormat::Custom(Arc::new(short))
}

fn short(value: f64) -> String {
    let (factor, unit) = match value.abs() {
        v if v >= 1e9 => (1e9, "G"),
        v if v >= 1e6 => (1e6, "M"),
        v if v >= 1e3 => (1e3, "k"),
        _ => (1.0, ""),
    };
    let scaled = value / factor;
    // Powers of ten come with the error of a logarithm.
    let rounded = (scaled * 1e6).round() / 1e6;
    format!("{rounded}{unit}")
}

fn render(plots: Vec<Plot>, layout: Layout, directory: &Path, name: &str) -> Result<(), PlotError> {
    let scene = render_multiple(plots, layout);
    let pixels = PngBackend::new().with_scale(SCALE).render_scene(&scene);
    let pixels = pixels.map_err(|reason| PlotError::Pixels { name: name.to_owned(), reason })?;
    let svg = SvgBackend::new().render_scene(&scene);
    let write = |extension: &str, bytes: &[u8]| {
        let path = directory.join(format!("{name}.{extension}"));
        files::write_whole(&path, bytes).map_err(|source| PlotError::Io { path, source })
    };
    write("svg", svg.as_bytes())?;
    write("png", &pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_drawn_in_both_formats() {
        let directory = tempfile::tempdir().unwrap();
        let series = |name: &str, factor: f64, dashed| Series {
            name: name.to_owned(),
            points: (0..6).map(|x| (f64::from(1 << x), factor * f64::from(1 << (2 * x)))).collect(),
            dashed,
            ..Series::default()
        };
        let lines = LineChart {
            title: "time".to_owned(),
            x: "weights".to_owned(),
            y: "ms".to_owned(),
            x_scale: Scale::Logarithmic,
            y_scale: Scale::Logarithmic,
            series: vec![series("measured", 1.0, false), series("projected", 0.1, true)],
        };
        lines.write(directory.path(), "lines").unwrap();
        let bars = BarChart {
            title: "sizes".to_owned(),
            y: "bytes".to_owned(),
            y_scale: Scale::Linear,
            series: vec!["proof".to_owned(), "key".to_owned()],
            groups: vec![("a".to_owned(), vec![1.0, 2.0]), ("b".to_owned(), vec![3.0, 4.0])],
        };
        bars.write(directory.path(), "bars").unwrap();
        let histogram =
            HistogramChart { title: "errors".to_owned(), values: vec![0.1, 0.2, 0.2], ..Default::default() };
        histogram.write(directory.path(), "histogram").unwrap();
        for name in ["lines", "bars", "histogram"] {
            let svg = std::fs::read_to_string(directory.path().join(format!("{name}.svg"))).unwrap();
            assert!(svg.contains("<svg"), "{name}");
            let png = std::fs::read(directory.path().join(format!("{name}.png"))).unwrap();
            assert!(png.starts_with(b"\x89PNG"), "{name}");
        }
        let svg = std::fs::read_to_string(directory.path().join("lines.svg")).unwrap();
        assert!(svg.contains("projected") && svg.contains("weights"), "legend and axes have their names");
    }

    #[test]
    fn marks_of_what_was_measured_once_are_hollow() {
        let directory = tempfile::tempdir().unwrap();
        let drawn = |once: &[(f64, f64)], name: &str| {
            let points = vec![(1.0, 1.0), (2.0, 3.0)];
            let series = vec![Series { name: "a".to_owned(), points, once: once.to_vec(), ..Series::default() }];
            LineChart { series, ..LineChart::default() }.write(directory.path(), name).unwrap();
            std::fs::read_to_string(directory.path().join(format!("{name}.svg"))).unwrap()
        };
        let hollow = |svg: &str| svg.matches("fill-opacity=\"0\"").count();
        assert_eq!((hollow(&drawn(&[], "solid")), hollow(&drawn(&[(2.0, 3.0)], "hollow"))), (0, 1));
    }

    #[test]
    fn nothing_to_show_is_no_plot() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(LineChart::default().write(directory.path(), "lines"), Err(PlotError::Empty(_))));
        assert!(matches!(BarChart::default().write(directory.path(), "bars"), Err(PlotError::Empty(_))));
        assert!(matches!(HistogramChart::default().write(directory.path(), "h"), Err(PlotError::Empty(_))));
    }

    #[test]
    fn bars_end_at_round_places_and_hold_all_values() {
        let ((low, high), width) = bins(&[-0.152, 0.0, 0.001, 0.093]);
        assert_eq!((low, high, width), (-0.2, 0.1, 0.05));
        let ((low, high), width) = bins(&[3.0; 5]);
        assert!(low <= 3.0 && 3.0 < high && width > 0.0);
        assert_eq!([0.3, 0.5, 7.0, 1.0].map(round_up), [0.5, 0.5, 10.0, 1.0]);
    }

    #[test]
    fn logarithmic_axes_leave_room_for_marks_at_their_ends() {
        let ends = |values: &[f64]| decades(values.iter().copied());
        assert_eq!(ends(&[2.0, 300.0]), (1.0, 1000.0));
        assert_eq!(ends(&[1.0, 983.0]), (0.8, 1250.0));
        assert_eq!(ends(&[1.0]), (0.8, 10.0));
    }

    #[test]
    fn bars_on_a_logarithmic_axis_have_a_height() {
        assert_eq!([0.5, 3.0, 1.0, 4000.0].map(foot), [0.1, 1.0, 0.1, 1000.0]);
        assert_eq!(foot(f64::INFINITY), 1.0);
    }

    #[test]
    fn ticks_are_short() {
        let tick = |value| multiple_of(2e-4, value);
        assert_eq!([-8e-4, 6.000_000_000_000_001e-4, 1e-20, 0.0].map(tick), ["-8e-4", "6e-4", "0", "0"]);
        assert_eq!([-0.15, 0.1].map(|value| multiple_of(0.05, value)), ["-0.15", "0.1"]);
        assert_eq!([0.01, 9.999_999_9, 1000.0, 2.5e6, 1e9].map(short), ["0.01", "10", "1k", "2.5M", "1G"]);
    }
}
