//! Small SVG plots: axes with units and ticks, lines, dots, and a legend.
//!
//! Colors are CSS classes of the page (`s1` … `s5` for series), so that one drawing works in light
//! and dark mode and in print.

use super::escape;
use std::fmt::Write;

/// Scale of an axis, linear or logarithmic.
#[derive(Clone, Copy, PartialEq)]
enum Spread {
    Linear,
    Log,
}

/// An axis with label, range and ticks.
pub struct Axis {
    label: String,
    low: f64,
    high: f64,
    spread: Spread,
    ticks: Vec<f64>,
}

impl Axis {
    /// Creates a linear axis over `low ..= high`, extended to round numbers.
    pub fn linear(label: &str, low: f64, high: f64) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        let step = round_step((high - low) / 5.0);
        let (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
        Self {
            label: label.to_owned(),
            low,
            high,
            spread: Spread::Linear,
            ticks: ticks(low, high, step),
        }
    }

    /// Creates a linear axis over exactly `low ..= high`, with ticks at round numbers.
    pub fn exact(label: &str, low: f64, high: f64) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        let step = round_step((high - low) / 6.0);
        let first = (low / step).ceil() * step;
        Self {
            label: label.to_owned(),
            low,
            high,
            spread: Spread::Linear,
            ticks: ticks(first, high, step),
        }
    }

    /// Creates a logarithmic axis over exactly `low ..= high` (positive), with ticks at round
    /// numbers. The ends are clamped to 1e±30.
    pub fn exact_log(label: &str, low: f64, high: f64) -> Self {
        let [low, high] = [low, high].map(|end| end.clamp(1e-30, 1e30));
        let high = if high > low { high } else { low * 2.0 };
        let ticks = if high / low <= 5.0 {
            let step = round_step((high - low) / 5.5);
            ticks((low / step).ceil() * step, high, step)
        } else {
            let factors: &[f64] = if high / low <= 1000.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
            let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
            decades
                .flat_map(|decade| factors.iter().map(move |factor| factor * 10f64.powi(decade)))
                .filter(|tick| (low..=high).contains(tick))
                .collect()
        };
        Self { label: label.to_owned(), low, high, spread: Spread::Log, ticks }
    }

    /// Returns the position of `value`, from 0 (low end) to 1 (high end), clamped; NaN maps to 0.
    fn place(&self, value: f64) -> f64 {
        let share = match self.spread {
            Spread::Linear => (value - self.low) / (self.high - self.low),
            Spread::Log => {
                (value.max(self.low) / self.low).log10() / (self.high / self.low).log10()
            }
        };
        if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
    }
}

/// Returns the smallest of 1, 2, 5 times a power of ten that is at least `rough`.
fn round_step(rough: f64) -> f64 {
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|f| f * power >= rough * 0.999);
    factor.unwrap_or(10.0) * power
}

fn ticks(first: f64, last: f64, step: f64) -> Vec<f64> {
    let count = ((last - first) / step + 1e-9).floor().max(0.0) as i32;
    (0..=count).map(|index| first + f64::from(index) * step).collect()
}

/// Formats a number with as few decimals as needed, at most four.
pub fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    match text {
        "-0" | "" => "0".to_owned(),
        text => text.replace('-', "\u{2212}"),
    }
}

/// Drawing style of a series.
#[derive(Clone, Copy, PartialEq)]
pub enum Stroke {
    /// Line, interrupted at missing points.
    Line,
    Dots,
    Dashed,
    /// Filled columns from the low end of the y axis. Each point is the left edge of a column; the
    /// last point is the right edge of the last column.
    Columns,
    /// Outline of [`Columns`](Self::Columns).
    Outline,
}

/// A named sequence of points.
pub struct Series {
    pub name: String,
    /// CSS class that sets the color.
    pub class: &'static str,
    pub stroke: Stroke,
    /// Points in order; `None` interrupts a line.
    pub points: Vec<Option<[f64; 2]>>,
}

/// A mark with a label next to it.
pub struct Mark {
    pub at: [f64; 2],
    pub class: &'static str,
    pub shape: Shape,
    /// Label next to the mark; may be empty.
    pub word: String,
    pub tip: String,
}

/// Shape that is drawn for a mark.
#[derive(Clone, Copy, PartialEq)]
pub enum Shape {
    Circle,
    Square,
}

/// Content of a plot, drawn by [`Plot::draw`].
pub struct Plot<'a> {
    /// Text alternative for screen readers.
    pub description: &'a str,
    pub size: [f64; 2],
    pub x: Axis,
    pub y: Axis,
    /// True if y increases downward, as on a map with a y axis to the south.
    pub y_down: bool,
    pub series: &'a [Series],
    pub marks: &'a [Mark],
}

const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 44.0;

impl Plot<'_> {
    /// Returns the size of the area inside the axes, for a drawing of `size`.
    pub fn inner(size: [f64; 2]) -> [f64; 2] {
        [size[0] - LEFT - RIGHT, size[1] - TOP - BOTTOM]
    }

    fn to_page(&self, point: [f64; 2]) -> [f64; 2] {
        let [width, height] = Self::inner(self.size);
        let y = self.y.place(point[1]);
        let y = if self.y_down { y } else { 1.0 - y };
        [LEFT + self.x.place(point[0]) * width, TOP + y * height]
    }

    /// Returns the plot as SVG, with a legend above if it has more than one series.
    pub fn draw(&self) -> String {
        let mut out = legend(self.series);
        let [width, height] = self.size;
        let _ = write!(
            out,
            r#"<svg viewBox="0 0 {width} {height}" role="img" aria-label="{}">"#,
            escape(self.description)
        );
        self.draw_axes(&mut out);
        for series in self.series {
            self.draw_series(&mut out, series);
        }
        for mark in self.marks {
            self.draw_mark(&mut out, mark);
        }
        out += "</svg>";
        out
    }

    fn draw_axes(&self, out: &mut String) {
        let [width, height] = Self::inner(self.size);
        let (right, bottom) = (LEFT + width, TOP + height);
        for tick in &self.x.ticks {
            let x = LEFT + self.x.place(*tick) * width;
            let _ = write!(
                out,
                r#"<line class="grid" x1="{x:.1}" x2="{x:.1}" y1="{TOP}" y2="{bottom}"/><text class="tick" x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                bottom + 16.0,
                short(*tick)
            );
        }
        for tick in &self.y.ticks {
            let y = self.to_page([self.x.low, *tick])[1];
            let _ = write!(
                out,
                r#"<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1}" y2="{y:.1}"/><text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
                LEFT - 7.0,
                y + 3.5,
                short(*tick)
            );
        }
        let middle = TOP + height / 2.0;
        let _ = write!(
            out,
            r#"<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/><text class="label" x="{:.1}" y="{:.1}" text-anchor="middle">{}</text><text class="label" transform="translate(13 {middle:.1}) rotate(-90)" text-anchor="middle">{}</text>"#,
            LEFT + width / 2.0,
            self.size[1] - 8.0,
            escape(&self.x.label),
            escape(&self.y.label)
        );
    }

    fn draw_series(&self, out: &mut String, series: &Series) {
        let class = series.class;
        if series.stroke == Stroke::Dots {
            for point in downsampled(&series.points).into_iter().flatten() {
                let [x, y] = self.to_page(point);
                let _ =
                    write!(out, r#"<circle class="dot {class}" cx="{x:.1}" cy="{y:.1}" r="2.6"/>"#);
            }
            return;
        }
        if matches!(series.stroke, Stroke::Columns | Stroke::Outline) {
            self.draw_columns(out, series);
            return;
        }
        let mut path = String::new();
        let mut is_pen_down = false;
        for point in downsampled(&series.points) {
            if let Some(point) = point {
                let [x, y] = self.to_page(point);
                let letter = if is_pen_down { 'L' } else { 'M' };
                let _ = write!(path, "{letter}{x:.1} {y:.1}");
            }
            is_pen_down = point.is_some();
        }
        let style = match series.stroke {
            Stroke::Dashed => "dashed",
            _ => "line",
        };
        let _ = write!(out, r#"<path class="{style} {class}" d="{path}"/>"#);
    }

    fn draw_columns(&self, out: &mut String, series: &Series) {
        let style = if series.stroke == Stroke::Columns { "columns" } else { "outline" };
        let base = TOP + Self::inner(self.size)[1];
        let mut path = String::new();
        for point in series.points.iter().flatten() {
            let [x, y] = self.to_page(*point);
            let start = if path.is_empty() { format!("M{x:.1} {base}") } else { String::new() };
            let _ = write!(path, "{start}H{x:.1}V{y:.1}");
        }
        let _ = write!(out, r#"<path class="{style} {}" d="{path}"/>"#, series.class);
    }

    fn draw_mark(&self, out: &mut String, mark: &Mark) {
        let [x, y] = self.to_page(mark.at);
        let class = mark.class;
        let _ = write!(out, "<g><title>{}</title>", escape(&mark.tip));
        let _ = match mark.shape {
            Shape::Circle => {
                write!(out, r#"<circle class="mark {class}" cx="{x:.1}" cy="{y:.1}" r="5"/>"#)
            }
            Shape::Square => write!(
                out,
                r#"<rect class="mark {class}" x="{:.1}" y="{:.1}" width="10" height="10"/>"#,
                x - 5.0,
                y - 5.0
            ),
        };
        if !mark.word.is_empty() {
            let is_right = x > LEFT + Self::inner(self.size)[0] * 0.8;
            let (offset, anchor) = if is_right { (-9.0, "end") } else { (9.0, "start") };
            let _ = write!(
                out,
                r#"<text class="word" x="{:.1}" y="{:.1}" text-anchor="{anchor}">{}</text>"#,
                x + offset,
                y - 7.0,
                escape(&mark.word)
            );
        }
        *out += "</g>";
    }
}

/// Named rows over a common x axis.
pub struct RowAxis {
    x: Axis,
    rows: usize,
    row_height: f64,
}

impl RowAxis {
    const WIDTH: f64 = 1040.0;
    const LEFT: f64 = 150.0;
    const RIGHT: f64 = 60.0;

    /// Creates an axis with `rows` rows of height `row_height`.
    pub fn new(x: Axis, rows: usize, row_height: f64) -> Self {
        Self { x, rows, row_height }
    }

    /// Returns the x coordinate at which `value` is drawn.
    pub fn to_page(&self, value: f64) -> f64 {
        Self::LEFT + self.x.place(value) * (Self::WIDTH - Self::LEFT - Self::RIGHT)
    }

    /// Returns the y coordinate of the middle of a row.
    pub fn middle(&self, row: usize) -> f64 {
        TOP + self.row_height * (row as f64 + 0.5)
    }

    /// Returns the y coordinates of top and bottom of all rows.
    pub fn height(&self) -> [f64; 2] {
        [TOP, TOP + self.row_height * self.rows as f64]
    }

    /// Returns the opening `svg` tag and the grid.
    pub fn open(&self, description: &str) -> String {
        let [_, bottom] = self.height();
        let (width, height) = (Self::WIDTH, bottom + BOTTOM);
        let mut out = format!(
            r#"<svg viewBox="0 0 {width} {height}" role="img" aria-label="{}">"#,
            escape(description)
        );
        for tick in &self.x.ticks {
            let x = self.to_page(*tick);
            let _ = write!(
                out,
                r#"<line class="grid" x1="{x:.1}" x2="{x:.1}" y1="{TOP}" y2="{bottom}"/><text class="tick" x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                bottom + 16.0,
                short(*tick)
            );
        }
        let right = Self::WIDTH - Self::RIGHT;
        let _ = write!(
            out,
            r#"<path class="axis" d="M{} {bottom}H{right}"/><text class="label" x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            Self::LEFT,
            (Self::LEFT + right) / 2.0,
            height - 8.0,
            escape(&self.x.label)
        );
        out
    }

    /// Returns the label of a row as SVG text.
    pub fn name(&self, row: usize, name: &str) -> String {
        format!(
            r#"<text class="label" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            Self::LEFT - 12.0,
            self.middle(row) + 4.0,
            escape(name)
        )
    }
}

/// Returns the legend. It is empty for a single series, but keeps its place in the layout.
fn legend(series: &[Series]) -> String {
    let mut out = String::from(r#"<div class="legend">"#);
    for entry in series.iter().filter(|_| series.len() > 1) {
        let shape = match entry.stroke {
            Stroke::Line => r#"<path class="line KEY" d="M0 6H22"/>"#,
            Stroke::Dashed => r#"<path class="dashed KEY" d="M0 6H22"/>"#,
            Stroke::Dots => r#"<circle class="dot KEY" cx="11" cy="6" r="3.2"/>"#,
            Stroke::Columns => r#"<path class="columns KEY" d="M2 12V1H20V12"/>"#,
            Stroke::Outline => r#"<path class="outline KEY" d="M2 12V1H20V12"/>"#,
        };
        let shape = shape.replace("KEY", entry.class);
        let name = escape(&entry.name);
        let _ = write!(
            out,
            r#"<span><svg class="key" width="22" height="12" viewBox="0 0 22 12" aria-hidden="true">{shape}</svg>{name}</span>"#
        );
    }
    out + "</div>"
}

/// Reduces a series to about 800 points: of each chunk, the points with the smallest and the
/// largest y, so that no peak is lost.
fn downsampled(points: &[Option<[f64; 2]>]) -> Vec<Option<[f64; 2]>> {
    const CHUNKS: usize = 400;
    if points.len() <= 2 * CHUNKS {
        return points.to_vec();
    }
    let mut kept = Vec::with_capacity(2 * CHUNKS);
    for chunk in points.chunks(points.len().div_ceil(CHUNKS)) {
        let by_y = |left: &&[f64; 2], right: &&[f64; 2]| left[1].total_cmp(&right[1]);
        let low = chunk.iter().flatten().min_by(by_y);
        let high = chunk.iter().flatten().max_by(by_y);
        let mut pair: Vec<_> = low.into_iter().chain(high).copied().collect();
        pair.sort_by(|left, right| left[0].total_cmp(&right[0]));
        pair.dedup();
        kept.extend(pair.into_iter().map(Some));
        if chunk.iter().any(Option::is_none) {
            kept.push(None);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axis_ticks_are_round_and_within_range() {
        let axis = Axis::linear("m", -3.2, 17.0);
        assert_eq!((axis.low, axis.high), (-5.0, 20.0));
        assert_eq!(axis.ticks, [-5.0, 0.0, 5.0, 10.0, 15.0, 20.0]);
        let axis = Axis::exact_log("ms", 0.01, 1000.0);
        assert!((axis.place(1.0) - 0.4).abs() < 1e-12);
        let axis = Axis::exact_log("ms", 4.1, 5.6);
        assert_eq!(axis.ticks.len(), 3, "{:?}", axis.ticks);
        assert_eq!(Axis::exact_log("ms", 0.3, 12.0).ticks, [0.5, 1.0, 2.0, 5.0, 10.0]);
        assert_eq!(Axis::exact_log("ms", 3.0, 3.0).place(f64::NAN), 0.0);
        assert!(Axis::exact_log("ms", 0.0, f64::INFINITY).ticks.len() < 70);
    }

    #[test]
    fn downsampling_keeps_peaks() {
        let points: Vec<_> =
            (0..5000).map(|i| Some([f64::from(i), if i == 3333 { 99.0 } else { 1.0 }])).collect();
        let kept = downsampled(&points);
        assert!(kept.len() <= 900, "{} points", kept.len());
        assert!(kept.contains(&Some([3333.0, 99.0])));
    }

    #[test]
    fn numbers_are_printed_without_rounding_noise() {
        let cases = [(0.1 + 0.2, "0.3"), (100.0, "100"), (-5.0, "\u{2212}5"), (-0.0, "0")];
        for (value, text) in cases {
            assert_eq!(short(value), text);
        }
    }
}
