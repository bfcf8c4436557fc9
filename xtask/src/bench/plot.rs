//! The report as a picture: bars in an SVG, with the figures beside them.

use super::{
    candidate::named,
    grid::Kind,
    report::{Report, Row},
    table::{percent, ratio, spread},
};
use std::fmt::Write;

/// Pixels.
const WIDTH: f64 = 900.0;
const MARGIN: f64 = 28.0;
/// Where the bars begin, and how long the longest is.
const BARS: f64 = 250.0;
const LONGEST: f64 = 280.0;
/// Where the columns of figures begin.
const SPEED: f64 = BARS + LONGEST + 18.0;
const SHARE: f64 = SPEED + 168.0;
const RATIO: f64 = SHARE + 12.0;
/// A bar, and a bar with the gap below it.
const BAR: f64 = 14.0;
const STEP: f64 = 19.0;
/// Between the groups of bars.
const GAP: f64 = 11.0;
/// How far beyond the greatest speed a limit may lie to be marked.
const MOST_BEYOND: f64 = 2.5;

/// Colours that are told apart by most eyes (https://jfly.uni-koeln.de/color/), and with white behind them.
const COLOURS: [&str; 6] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"];
const INK: &str = "#1f2328";
const MUTED: &str = "#59636e";
const LINE: &str = "#d1d9e0";

/// The whole picture.
pub(super) fn svg(report: &Report) -> String {
    let backends = backends(report);
    let mut body = Drawing { out: String::new(), y: MARGIN };
    body.head(report, &backends);
    let mut models: Vec<&str> = report.rows.iter().map(|r| r.model.as_str()).collect();
    models.dedup();
    for model in &models {
        for kind in [Kind::Prefill, Kind::Decode] {
            let of = |r: &&Row| r.model == *model && r.kind == kind;
            let rows: Vec<&Row> = report.rows.iter().filter(of).collect();
            if !rows.is_empty() {
                let title = match (models.len(), kind) {
                    (1, Kind::Prefill) => "Prefill".to_owned(),
                    (1, Kind::Decode) => "Decode".to_owned(),
                    _ => format!("{model}, {kind}"),
                };
                body.panel(&title, &rows, &backends);
            }
        }
    }
    body.foot(report);
    let height = body.y + MARGIN - 12.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         role=\"img\" font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\" font-size=\"12\">\n\
         <title>{}</title>\n\
         <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"10\" fill=\"#ffffff\" stroke=\"{LINE}\"/>\n{}</svg>\n",
        escape(&format!("tokens per second of {}", models.join(", "))),
        WIDTH - 1.0,
        height - 1.0,
        body.out
    )
}

/// Names of the backends, in their order; a backend's place is its colour.
fn backends(report: &Report) -> Vec<&str> {
    let mut names = Vec::new();
    for facts in &report.candidates {
        if !names.contains(&facts.backend.as_str()) {
            names.push(facts.backend.as_str());
        }
    }
    names
}

/// An SVG that grows downwards.
struct Drawing {
    out: String,
    /// Where the next thing is drawn.
    y: f64,
}

impl Drawing {
    /// The model, the machine, and whose colour is which.
    fn head(&mut self, report: &Report, backends: &[&str]) {
        let mut models: Vec<&str> = report.candidates.iter().map(|f| f.model.as_str()).collect();
        models.dedup();
        self.y += 12.0;
        self.text(MARGIN, &models.join(", "), "font-size=\"19\" font-weight=\"600\"", INK);
        let (m, limits) = (&report.machine, report.before.max(report.after));
        let (peak, kind) = limits.peak();
        let int8 =
            limits.int8.map_or_else(String::new, |r| format!(", int8 {:.0} Gop/s", r.best / 1e9));
        for line in [
            format!(
                "{}, {} {}, {} threads; {}",
                m.cpu, m.os, m.arch, report.before.threads, report.date
            ),
            format!(
                "limits measured in the same run: reading {:.1} GB/s, {kind} {:.0} GFLOP/s{int8}",
                limits.read.best / 1e9,
                peak / 1e9
            ),
        ] {
            self.y += 19.0;
            self.text(MARGIN, &line, "", MUTED);
        }
        self.y += 8.0;
        for (at, backend) in backends.iter().enumerate() {
            let facts = report.candidates.iter().filter(|f| f.backend == *backend);
            let mut weights: Vec<&str> = facts.map(|f| f.weights.as_str()).collect();
            weights.dedup();
            self.y += STEP;
            let colour = COLOURS[at % COLOURS.len()];
            self.rect(MARGIN, self.y - 10.0, 11.0, 11.0, colour);
            self.text(MARGIN + 19.0, backend, "font-weight=\"600\"", INK);
            let note = report.candidates.iter().find(|f| f.backend == *backend);
            let note = note.map(|f| match f.note.as_str() {
                "" => f.device.clone(),
                note => format!("{}; {note}", f.device),
            });
            let text = format!("{} weights; {}", weights.join(", "), note.unwrap_or_default());
            self.text(MARGIN + 110.0, &shortened(&text, 118), "", MUTED);
        }
    }

    /// All cells of one kind, on one scale.
    fn panel(&mut self, title: &str, rows: &[&Row], backends: &[&str]) {
        self.y += 38.0;
        self.text(MARGIN, title, "font-size=\"15\" font-weight=\"600\"", INK);
        self.text(SPEED, "tokens/s (min–max)", "font-size=\"11\"", MUTED);
        if rows.iter().any(|r| r.share.is_some()) {
            self.text(SHARE, "of limit", "font-size=\"11\" text-anchor=\"end\"", MUTED);
        }
        if rows.iter().any(|r| r.ratio.is_some()) {
            let to = format!("to {}", backends.first().copied().unwrap_or_default());
            self.text(RATIO, &to, "font-size=\"11\"", MUTED);
        }
        self.y += 8.0;
        self.line(MARGIN, WIDTH - MARGIN, self.y, self.y, LINE);
        let scale = LONGEST / longest(rows);
        let mut cell = "";
        for row in rows {
            self.y += if row.cell == cell { STEP } else { STEP + GAP };
            if row.cell != cell {
                cell = &row.cell;
                self.text(MARGIN, cell, "font-size=\"12.5\"", INK);
            }
            let place = backends.iter().position(|b| *b == row.backend).unwrap_or(0);
            self.bar(row, COLOURS[place % COLOURS.len()], scale);
        }
    }

    /// One bar, its whisker and its limit's mark, and the figures.
    fn bar(&mut self, row: &Row, colour: &str, scale: f64) {
        let top = self.y - 11.0;
        let right = "font-size=\"11\" text-anchor=\"end\"";
        self.text(BARS - 8.0, &named(&row.backend, &row.weights), right, MUTED);
        let Some(speed) = &row.tokens_per_second else {
            self.text(BARS + 2.0, "–", "", MUTED);
            return;
        };
        let middle = top + BAR / 2.0;
        self.rect(BARS, top, (speed.median * scale).max(1.0), BAR, colour);
        let (min, max) = (BARS + speed.min * scale, BARS + speed.max * scale);
        self.line(min, max, middle, middle, INK);
        for end in [min, max] {
            self.line(end, end, middle - 3.0, middle + 3.0, INK);
        }
        if let Some(limit) = row.limit.filter(|limit| *limit * scale <= LONGEST + 0.5) {
            let x = BARS + limit * scale;
            let _ = writeln!(
                self.out,
                "<path d=\"M{x:.1} {:.1}V{:.1}\" stroke=\"{MUTED}\" stroke-width=\"2\"/>",
                top - 1.5,
                top + BAR + 1.5
            );
        }
        self.text(SPEED, &spread(speed), "font-weight=\"600\"", INK);
        if let Some(share) = row.share {
            self.text(SHARE, &percent(share), "text-anchor=\"end\"", INK);
        }
        if let Some(to) = &row.ratio {
            self.text(RATIO, &ratio(to), "", INK);
        }
    }

    fn foot(&mut self, report: &Report) {
        self.y += 34.0;
        let mut text = "Bars are medians with their range.".to_owned();
        if report.rows.iter().any(|r| r.share.is_some()) {
            text += " A grey stroke marks the limit: of arithmetic for prefill, of reading weights and cache for decode.";
        }
        self.text(MARGIN, &text, "font-size=\"11\"", MUTED);
        if report.rows.iter().any(|r| r.ratio.is_some()) {
            self.y += 16.0;
            let text = "Ratios are of medians (least–greatest of two runs side by side).";
            self.text(MARGIN, text, "font-size=\"11\"", MUTED);
        }
    }

    // Writing to a `String` never fails.

    fn text(&mut self, x: f64, text: &str, attributes: &str, colour: &str) {
        let y = self.y;
        let text = escape(text);
        let _ = writeln!(
            self.out,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{colour}\" {attributes}>{text}</text>"
        );
    }

    fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, colour: &str) {
        let _ = writeln!(
            self.out,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"2\" fill=\"{colour}\"/>"
        );
    }

    fn line(&mut self, x1: f64, x2: f64, y1: f64, y2: f64, colour: &str) {
        let _ = writeln!(
            self.out,
            "<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" stroke=\"{colour}\"/>"
        );
    }
}

/// The speed at the end of the scale: the greatest, or a limit that is not too far beyond it.
fn longest(rows: &[&Row]) -> f64 {
    let speeds = rows.iter().filter_map(|r| r.tokens_per_second.as_ref());
    let speed = speeds.map(|s| s.max).fold(f64::MIN_POSITIVE, f64::max);
    let near = |limit: &f64| *limit <= MOST_BEYOND * speed;
    let run = rows.iter().filter(|r| r.tokens_per_second.is_some());
    run.filter_map(|r| r.limit).filter(near).fold(speed, f64::max)
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::report;

    /// Texts of a document whose elements close as they open; panics where they do not.
    fn texts(xml: &str) -> Vec<String> {
        let mut open: Vec<&str> = Vec::new();
        let mut texts = Vec::new();
        let mut rest = xml.trim();
        while let Some(start) = rest.find('<') {
            let (text, tag) = rest.split_at(start);
            assert!(!text.contains('>'), "{text}");
            for (at, _) in text.match_indices('&') {
                let known = ["&amp;", "&lt;", "&gt;", "&quot;"];
                assert!(known.iter().any(|e| text[at..].starts_with(e)), "{text}");
            }
            if !text.trim().is_empty() {
                texts.push(text.to_owned());
            }
            let end = tag.find('>').expect("a tag ends");
            let inside = &tag[1..end];
            assert!(
                !inside.contains(['<', '&']) && inside.matches('"').count() % 2 == 0,
                "{inside}"
            );
            let name = inside.split([' ', '/']).next().unwrap();
            if let Some(closed) = inside.strip_prefix('/') {
                assert_eq!(open.pop(), Some(closed));
            } else if !inside.ends_with('/') {
                open.push(name);
            }
            rest = &tag[end + 1..];
            assert!(!open.is_empty() || rest.is_empty(), "more than one root");
        }
        assert!(open.is_empty() && rest.is_empty(), "{open:?}");
        texts
    }

    #[test]
    fn it_is_well_formed_and_has_every_value() {
        let report = report();
        let texts = texts(&svg(&report));
        let has = |wanted: &str| texts.iter().any(|t| t == &escape(wanted));
        for row in &report.rows {
            let name = named(&row.backend, &row.weights);
            assert!(has(&row.cell) && has(&row.backend) && has(&name), "{row:?}");
            assert!(row.tokens_per_second.is_none_or(|s| has(&spread(&s))), "{row:?}");
            assert!(row.share.is_none_or(|s| has(&percent(s))), "{row:?}");
            assert!(row.ratio.is_none_or(|r| has(&ratio(&r))), "{row:?}");
        }
        for wanted in ["2026-01-31", "d &amp; &lt;e&gt;", "2 threads"] {
            assert!(texts.iter().any(|t| t.contains(wanted)), "{wanted}");
        }
    }

    #[test]
    fn nothing_is_drawn_beyond_the_bars() {
        let report = report();
        let all: Vec<&Row> = report.rows.iter().collect();
        let end = longest(&all);
        // The prefill of 80 tokens/s is the limit of 50.
        assert_eq!(end, 80.0);
        let far = Row { limit: Some(1e9), ..report.rows[0].clone() };
        assert_eq!(longest(&[&far]), 50.0);
    }
}
