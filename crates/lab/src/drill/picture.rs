//! A run as a picture (SVG): the whole of it, and below that its outage enlarged.

use std::fmt::Write as _;

use super::timeline::Timeline;

const WIDTH: f64 = 1000.0;
/// Left of the lanes stand their names.
const LEFT: f64 = 110.0;
const RIGHT: f64 = 20.0;
/// Height of one panel with its three lanes and the axis.
const PANEL: f64 = 190.0;
const LANE: f64 = 26.0;
/// Colours of the nodes that are primary in turn.
const NODES: [&str; 5] = ["#3b6ea5", "#b5651d", "#6a4c93", "#2a7f62", "#8d3b72"];
/// How many marks an axis has at the most.
const MARKS: f64 = 10.0;
/// What is shown before and after the outage when it is enlarged, as a part of it.
const AROUND: f64 = 0.35;

/// A stretch of time and where it stands.
struct Panel<'a> {
    timeline: &'a Timeline,
    from: f64,
    to: f64,
    top: f64,
    title: String,
}

/// The picture of a run; `title` stands above it.
pub fn svg(title: &str, timeline: &Timeline) -> String {
    let first = timeline.acknowledged.first().copied().unwrap_or(0.0).max(-1000.0);
    let whole =
        Panel { timeline, from: first, to: timeline.end.max(1.0), top: 50.0, title: "whole run".to_owned() };
    let mut panels = vec![whole];
    if let Some((from, to)) = timeline.outage {
        let around = ((to - from) * AROUND).max(20.0);
        panels.push(Panel {
            timeline,
            from: from - around,
            to: to + around,
            top: 50.0 + PANEL,
            title: format!("no write acknowledged for {:.0} ms", to - from),
        });
    }
    let height = 60.0 + PANEL * f64::from(u32::try_from(panels.len()).unwrap_or(1)) + legend_height(timeline);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"20\" y=\"28\" font-size=\"17\">{}</text>\n",
        escaped(title)
    );
    for panel in &panels {
        svg += &panel.draw();
    }
    svg += &legend(timeline, height - legend_height(timeline));
    svg + "</svg>\n"
}

impl Panel<'_> {
    fn x(&self, at: f64) -> f64 {
        let share = ((at - self.from) / (self.to - self.from)).clamp(0.0, 1.0);
        ((LEFT + share * (WIDTH - LEFT - RIGHT)) * 10.0).round() / 10.0
    }

    fn shows(&self, at: f64) -> bool {
        (self.from..=self.to).contains(&at)
    }

    /// Where the lane of this number begins.
    fn lane(&self, number: f64) -> f64 {
        self.top + 28.0 + number * (LANE + 8.0)
    }

    fn draw(&self) -> String {
        let title = format!(
            "<text x=\"20\" y=\"{}\" font-size=\"13\" fill=\"#444\">{}</text>\n",
            self.top + 14.0,
            escaped(&self.title)
        );
        title
            + &self.outage()
            + &self.writes()
            + &self.primaries()
            + &self.redundancy()
            + &self.deeds()
            + &self.axis()
    }

    fn name(&self, number: f64, name: &str) -> String {
        format!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>\n",
            LEFT - 8.0,
            self.lane(number) + 17.0
        )
    }

    fn band(&self, from: f64, to: f64, number: f64, colour: &str) -> String {
        let (left, right) = (self.x(from), self.x(to));
        format!(
            "<rect x=\"{left}\" y=\"{}\" width=\"{:.1}\" height=\"{LANE}\" fill=\"{colour}\"/>\n",
            self.lane(number),
            (right - left).max(0.0)
        )
    }

    fn outage(&self) -> String {
        let Some((from, to)) = self.timeline.outage else { return String::new() };
        self.band(from, to, 0.0, "#f8d7da")
    }

    fn writes(&self) -> String {
        let ticks = |times: &[f64], colour: &str, wide: f64| {
            let shown = times.iter().filter(|at| self.shows(**at));
            let path: String = shown.fold(String::new(), |mut path, at| {
                let _ = write!(path, "M{} {}v{LANE}", self.x(*at), self.lane(0.0));
                path
            });
            format!("<path d=\"{path}\" stroke=\"{colour}\" stroke-width=\"{wide}\"/>\n")
        };
        self.name(0.0, "writes")
            + &ticks(&self.timeline.acknowledged, "#2a9d5c", 1.0)
            + &ticks(&self.timeline.errors, "#c1121f", 2.0)
    }

    fn primaries(&self) -> String {
        let names = names(self.timeline);
        let mut lane = self.name(1.0, "primary");
        for (from, to, primary) in stretches(&self.timeline.primaries, self.timeline.end) {
            if to < self.from || from > self.to {
                continue;
            }
            let Some(primary) = primary else {
                lane += &self.band(from, to, 1.0, "#e9ecef");
                continue;
            };
            let place = names.iter().position(|name| *name == primary).unwrap_or(0);
            lane += &self.band(from, to, 1.0, NODES[place % NODES.len()]);
            if self.x(to) - self.x(from) > 30.0 {
                let (x, y) = (self.x(from.max(self.from)) + 6.0, self.lane(1.0) + 17.0);
                let _ =
                    writeln!(lane, "<text x=\"{x}\" y=\"{y}\" fill=\"white\">{}</text>", escaped(primary));
            }
        }
        lane
    }

    fn redundancy(&self) -> String {
        let mut lane = self.name(2.0, "redundant");
        for (from, to, whole) in stretches(&self.timeline.redundant, self.timeline.end) {
            if to >= self.from && from <= self.to {
                lane += &self.band(from, to, 2.0, if *whole { "#a7d7b8" } else { "#f4b860" });
            }
        }
        lane
    }

    /// Numbered lines through all lanes; the legend says what was done.
    fn deeds(&self) -> String {
        let mut lines = String::new();
        for (number, (at, _)) in self.timeline.deeds.iter().enumerate().filter(|(_, (at, _))| self.shows(*at))
        {
            let (x, top, bottom) = (self.x(*at), self.lane(0.0) - 4.0, self.lane(2.0) + LANE);
            let _ = writeln!(
                lines,
                "<path d=\"M{x} {top}V{bottom}\" stroke=\"black\" stroke-dasharray=\"3 2\"/>\
                 <text x=\"{x}\" y=\"{}\" text-anchor=\"middle\" font-weight=\"bold\">{}</text>",
                top - 2.0,
                number + 1
            );
        }
        lines
    }

    fn axis(&self) -> String {
        let y = self.lane(2.0) + LANE + 16.0;
        let step = step_of((self.to - self.from) / MARKS);
        let mut axis = String::new();
        let mut at = (self.from / step).ceil() * step;
        while at <= self.to {
            let x = self.x(at);
            let _ = writeln!(
                axis,
                "<path d=\"M{x} {}v5\" stroke=\"#888\"/><text x=\"{x}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555\">{}</text>",
                y - 14.0,
                y + 3.0,
                in_words(at)
            );
            at += step;
        }
        axis
    }
}

/// The smallest of 1, 2, 5, 10, 20, 50 ... that is not smaller.
fn step_of(wanted: f64) -> f64 {
    let power = 10_f64.powf(wanted.max(1.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|step| step * power >= wanted);
    step.unwrap_or(10.0) * power
}

fn in_words(ms: f64) -> String {
    if ms.abs() >= 1000.0 { format!("{:.1} s", ms / 1000.0) } else { format!("{ms:.0} ms") }
}

/// Each value with the time from which and until which it held.
fn stretches<T>(changes: &[(f64, T)], end: f64) -> impl Iterator<Item = (f64, f64, &T)> {
    changes.iter().enumerate().map(move |(number, (from, value))| {
        (*from, changes.get(number + 1).map_or(end, |(to, _)| *to), value)
    })
}

/// The primaries in the order of their turn.
fn names(timeline: &Timeline) -> Vec<&String> {
    let mut names: Vec<&String> = Vec::new();
    for name in timeline.primaries.iter().filter_map(|(_, primary)| primary.as_ref()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

const LINE: f64 = 18.0;

fn legend_height(timeline: &Timeline) -> f64 {
    LINE * f64::from(u32::try_from(timeline.deeds.len()).unwrap_or(0)) + 40.0
}

fn legend(timeline: &Timeline, top: f64) -> String {
    let mut legend = format!(
        "<text x=\"20\" y=\"{top}\" fill=\"#444\">green: an acknowledged write; red: one that failed or whose outcome is \
         unknown; orange: the system says that redundancy is missing</text>\n"
    );
    let mut y = top;
    for (number, (at, deed)) in timeline.deeds.iter().enumerate() {
        y += LINE;
        let _ = writeln!(
            legend,
            "<text x=\"20\" y=\"{y}\">{}  {}  {}</text>",
            number + 1,
            in_words(*at),
            escaped(deed)
        );
    }
    legend
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline() -> Timeline {
        Timeline {
            acknowledged: [-20.0, -10.0, 0.0, 400.0, 410.0, 3000.0].into(),
            errors: vec![300.0],
            outage: Some((0.0, 400.0)),
            deeds: vec![(5.0, "take the power from <e1>".to_owned()), (3000.0, "start e1".to_owned())],
            primaries: vec![(-20.0, Some("e1".to_owned())), (100.0, None), (350.0, Some("w1".to_owned()))],
            redundant: vec![(-20.0, true), (200.0, false), (3500.0, true)],
            end: 4000.0,
            ..Timeline::default()
        }
    }

    #[test]
    fn the_picture_of_a_run() {
        insta::assert_snapshot!(svg("drill node-kill", &timeline()));
    }

    #[test]
    fn a_run_without_anything_is_a_picture_too() {
        let svg = svg("nothing & <nobody>", &Timeline::default());
        assert!(svg.ends_with("</svg>\n") && svg.contains("nothing &amp; &lt;nobody&gt;"), "{svg}");
    }

    #[test]
    fn marks_stand_at_round_times() {
        assert_eq!([0.2, 3.0, 55.0, 100.0, 120.0].map(step_of), [1.0, 5.0, 100.0, 100.0, 200.0]);
    }
}
