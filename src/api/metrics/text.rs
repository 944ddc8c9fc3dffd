//! The two text formats: Prometheus's (version 0.0.4) and OpenMetrics (version 1.0.0). They differ in
//! how counters are named in their heads, in units, and in how a document ends.

use std::fmt::Write as _;

/// Which format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Format {
    /// Prometheus's own.
    Prometheus,
    /// OpenMetrics.
    OpenMetrics,
}

impl Format {
    /// What an `Accept` header asks for: OpenMetrics if it is named and liked no less than plain text
    /// (RFC 9110, section 12.5.1).
    pub(in crate::api) fn wanted(accept: &str) -> Format {
        let liking = |kind: &str| {
            let offers = accept.split(',').filter_map(|offer| {
                let mut parts = offer.split(';').map(str::trim);
                parts.next().filter(|name| name.eq_ignore_ascii_case(kind))?;
                let quality = parts.find_map(|part| part.strip_prefix("q="));
                Some(quality.map_or(1.0, |quality| quality.parse().unwrap_or(0.0)))
            });
            offers.fold(0.0, f64::max)
        };
        let open = liking("application/openmetrics-text");
        match open > 0.0 && open >= liking("text/plain") {
            true => Format::OpenMetrics,
            false => Format::Prometheus,
        }
    }

    /// The `Content-Type` of an answer.
    pub(in crate::api) fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What a family of series is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    Counter,
    Histogram,
}

/// Labels of a series, in their order.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// A document that grows.
pub(super) struct Document {
    format: Format,
    text: String,
    name: String,
}

/// Units that names end with.
const UNITS: [&str; 3] = ["seconds", "bytes", "ratio"];

impl Document {
    pub(super) fn new(format: Format) -> Document {
        Document { format, text: String::new(), name: String::new() }
    }

    /// Begins a family. The name of a counter ends with `_total`.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let bare = name.strip_suffix("_total").unwrap_or(name);
        let shown = if self.format == Format::OpenMetrics { bare } else { name };
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "# HELP {shown} {help}\n# TYPE {shown} {kind}");
        let unit = UNITS.iter().find(|unit| bare.ends_with(*unit));
        if let Some(unit) = unit.filter(|_| self.format == Format::OpenMetrics) {
            let _ = writeln!(self.text, "# UNIT {shown} {unit}");
        }
        name.clone_into(&mut self.name);
    }

    /// One series of the family.
    pub(super) fn sample(&mut self, labels: Labels<'_>, value: f64) {
        self.line("", labels, value);
    }

    /// A histogram: how many were within each bound, how many there were, and their sum.
    pub(super) fn histogram(&mut self, bounds: &[(f64, u64)], count: u64, sum: f64) {
        for (bound, within) in bounds {
            let bound = match self.format {
                Format::Prometheus => bound.to_string(),
                // There numbers have a point.
                Format::OpenMetrics => format!("{bound:?}"),
            };
            self.line("_bucket", &[("le", &bound)], *within as f64);
        }
        self.line("_bucket", &[("le", "+Inf")], count as f64);
        self.line("_sum", &[], sum);
        self.line("_count", &[], count as f64);
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, value: f64) {
        self.text.push_str(&self.name);
        self.text.push_str(suffix);
        for (number, (label, text)) in labels.iter().enumerate() {
            self.text.push(if number == 0 { '{' } else { ',' });
            self.text.push_str(label);
            self.text.push_str("=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, " {value}");
    }

    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::{Document, Format, Kind};

    fn written(format: Format) -> String {
        let mut document = Document::new(format);
        document.family("x_bytes_total", Kind::Counter, "Bytes.");
        document.sample(&[("a", "q\"\\\n"), ("b", "")], 12_345_678_901.0);
        document.family("y_seconds", Kind::Histogram, "Times.");
        document.histogram(&[(0.5, 1), (1.0, 2)], 3, 4.25);
        document.finish()
    }

    #[test]
    fn each_format_is_written_as_its_standard_says() {
        let samples = "x_bytes_total{a=\"q\\\"\\\\\\n\",b=\"\"} 12345678901\n";
        let plain = format!(
            "# HELP x_bytes_total Bytes.\n# TYPE x_bytes_total counter\n{samples}\
             # HELP y_seconds Times.\n# TYPE y_seconds histogram\n\
             y_seconds_bucket{{le=\"0.5\"}} 1\ny_seconds_bucket{{le=\"1\"}} 2\n\
             y_seconds_bucket{{le=\"+Inf\"}} 3\ny_seconds_sum 4.25\ny_seconds_count 3\n"
        );
        assert_eq!(written(Format::Prometheus), plain);
        let open = format!(
            "# HELP x_bytes Bytes.\n# TYPE x_bytes counter\n# UNIT x_bytes bytes\n{samples}\
             # HELP y_seconds Times.\n# TYPE y_seconds histogram\n# UNIT y_seconds seconds\n\
             y_seconds_bucket{{le=\"0.5\"}} 1\ny_seconds_bucket{{le=\"1.0\"}} 2\n\
             y_seconds_bucket{{le=\"+Inf\"}} 3\ny_seconds_sum 4.25\ny_seconds_count 3\n# EOF\n"
        );
        assert_eq!(written(Format::OpenMetrics), open);
    }

    #[test]
    fn openmetrics_comes_only_to_those_who_like_it_as_much() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;\
                          version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for open in
            [prometheus, "application/openmetrics-text", "text/plain, application/openmetrics-text"]
        {
            assert_eq!(Format::wanted(open), Format::OpenMetrics, "{open}");
        }
        for plain in [
            "",
            "*/*",
            "text/plain",
            "application/openmetrics-text;q=0",
            "text/html",
            "text/plain, application/openmetrics-text;q=0.5",
        ] {
            assert_eq!(Format::wanted(plain), Format::Prometheus, "{plain}");
        }
    }
}
