//! A line chart as inline SVG: no script, no fonts, no colours of its own (the page's style has them).
#![forbid(unsafe_code)]

use std::fmt::Write;

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 40.0;

/// One axis: what range it spans, and where it has lines and labels. Values are linear; whoever wants a logarithmic
/// axis takes logarithms.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Axis {
    pub(crate) title: &'static str,
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) ticks: Vec<(f64, String)>,
}

/// A chart of one line.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    /// What a reader who does not see the chart is told.
    pub(crate) description: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Axis {
    /// From zero to a round number that is not below `max`, with about five ticks.
    pub(crate) fn linear(title: &'static str, max: f64, label: impl Fn(f64) -> String) -> Axis {
        let step = round_step(max / 4.0);
        Axis::spanning(title, (max / step - 1e-9).ceil().max(1.0) * step, label)
    }

    /// From zero to `max`, with ticks at round numbers.
    pub(crate) fn spanning(title: &'static str, max: f64, label: impl Fn(f64) -> String) -> Axis {
        let to = if max > 0.0 { max } else { 1.0 };
        let step = round_step(to / 4.0);
        let ticks = (0..=(to / step + 1e-9) as u32).map(|n| f64::from(n) * step).map(|value| (value, label(value)));
        Axis { title, from: 0.0, to, ticks: ticks.collect() }
    }

    /// Whole decades around `min` to `max`, as decimal logarithms.
    pub(crate) fn decades(title: &'static str, min: f64, max: f64, label: impl Fn(f64) -> String) -> Axis {
        let from = min.max(f64::MIN_POSITIVE).log10().floor();
        let to = max.max(f64::MIN_POSITIVE).log10().ceil().max(from + 1.0);
        let ticks = (from as i32..=to as i32).map(|power| (f64::from(power), label(10f64.powi(power)))).collect();
        Axis { title, from, to, ticks }
    }

    /// Where a value lies between the ends, 0 to 1.
    fn place(&self, value: f64) -> f64 {
        ((value - self.from) / (self.to - self.from)).clamp(0.0, 1.0)
    }
}

/// The next of 1, 2, 5, 10, … that is not below `raw`.
fn round_step(raw: f64) -> f64 {
    if !(raw.is_finite() && raw > 0.0) {
        return 1.0;
    }
    let decade = 10f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * decade >= raw * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * decade
}

impl Plot {
    /// The chart as an `<svg>` element that scales with its place.
    pub(crate) fn to_svg(&self) -> String {
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            escape(&self.description)
        );
        self.write_grid(&mut svg);
        self.write_line(&mut svg);
        svg + "</svg>\n"
    }

    fn write_grid(&self, svg: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (value, label) in &self.y.ticks {
            let y = self.y_pixel(*value);
            push(svg, format_args!("<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>"));
            push(
                svg,
                format_args!(
                    "<text x=\"{:.1}\" y=\"{:.1}\" class=\"end\">{}</text>\n",
                    LEFT - 6.0,
                    y + 4.0,
                    escape(label)
                ),
            );
        }
        for (value, label) in &self.x.ticks {
            let x = self.x_pixel(*value);
            push(svg, format_args!("<path class=\"grid\" d=\"M{x:.1} {TOP}V{bottom}\"/>"));
            push(
                svg,
                format_args!(
                    "<text x=\"{x:.1}\" y=\"{:.1}\" class=\"middle\">{}</text>\n",
                    bottom + 16.0,
                    escape(label)
                ),
            );
        }
        let middle = (LEFT + right) / 2.0;
        push(
            svg,
            format_args!(
                "<text x=\"{middle:.1}\" y=\"{:.1}\" class=\"middle\">{}</text>\n",
                HEIGHT - 6.0,
                self.x.title
            ),
        );
    }

    fn write_line(&self, svg: &mut String) {
        svg.push_str("<path class=\"line\" d=\"");
        for (at, (x, y)) in self.points.iter().enumerate() {
            let command = if at == 0 { 'M' } else { 'L' };
            push(svg, format_args!("{command}{:.1} {:.1}", self.x_pixel(*x), self.y_pixel(*y)));
        }
        svg.push_str("\"/>\n");
    }

    fn x_pixel(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y_pixel(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(value) * (HEIGHT - TOP - BOTTOM)
    }
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a String takes all that is written to it");
}

/// Text as HTML and SVG want it, in elements and in quoted attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_axes_have_round_ticks() {
        let axis = Axis::linear("", 1234.0, |v| format!("{v}"));
        assert_eq!(axis.ticks.iter().map(|t| t.0).collect::<Vec<_>>(), [0.0, 500.0, 1000.0, 1500.0]);
        assert_eq!(Axis::linear("", 8.0, |v| format!("{v}")).to, 8.0);
        assert_eq!(Axis::linear("", 0.0, |v| format!("{v}")).to, 1.0);
        let exact = Axis::spanning("", 5.0, |v| format!("{v}"));
        assert_eq!((exact.to, exact.ticks.len(), exact.ticks[2].0), (5.0, 3, 4.0));
    }

    #[test]
    fn decades_enclose_the_range() {
        let axis = Axis::decades("", 25.0, 31_000.0, |v| format!("{v}"));
        assert_eq!((axis.from, axis.to), (1.0, 5.0));
        assert_eq!(axis.ticks[0], (1.0, "10".to_owned()));
        let point = Axis::decades("", 100.0, 100.0, |v| format!("{v}"));
        assert_eq!((point.from, point.to), (2.0, 3.0));
    }

    #[test]
    fn points_lie_within_the_frame() {
        let x = Axis::linear("seconds", 10.0, |v| format!("{v}"));
        let y = Axis::linear("", 4.0, |v| format!("{v}"));
        let plot = Plot { description: "a & b".into(), x, y, points: vec![(0.0, 0.0), (10.0, 4.0), (99.0, 99.0)] };
        let svg = plot.to_svg();
        assert!(svg.contains("d=\"M62.0 210.0L396.0 10.0L396.0 10.0\""), "{svg}");
        assert!(svg.contains("aria-label=\"a &amp; b\"") && svg.contains(">seconds</text>"));
    }
}
