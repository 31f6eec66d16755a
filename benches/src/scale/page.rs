//! The page: a plot of each cost over how many there are, and the numbers.

use std::fmt::Write;

use anyhow::anyhow;
use plotters::prelude::{
    BLACK, ChartBuilder, Circle, Color, IntoDrawingArea, LineSeries, Palette, Palette99, PathElement,
    SVGBackend, WHITE,
};

use super::{Devices, Results, Shared, Storm, Transfer, devices, storm, transfers};
use crate::stats::{Spread, short};

/// Lines of a plot, each with its name and its points, over which the rounds are spread.
type Lines<'a> = Vec<(&'a str, Vec<(f64, Spread)>)>;

pub(super) fn page(results: &Results) -> anyhow::Result<String> {
    let shared = |value: fn(&Transfer) -> Spread| -> Lines<'_> {
        let points = |shared: &Shared| shared.points.iter().map(|it| (it.count as f64, value(it))).collect();
        results.shared.iter().map(|shared| (shared.what, points(shared))).collect()
    };
    let idle_devices = |name, value: fn(&Devices) -> f64| -> Lines<'_> {
        let point = |it: &Devices| Some((it.count as f64, Spread::of([value(it)])?));
        vec![(name, results.devices.iter().filter_map(point).collect())]
    };
    let storms = |name, value: fn(&Storm) -> Spread| {
        (name, results.storms.iter().map(|it| (it.count as f64, value(it))).collect())
    };
    let back =
        vec![storms("all", |it| it.all_s), storms("99 %", |it| it.p99_s), storms("half", |it| it.half_s)];
    let sharers = "streams, tunnels or connections that share them";
    let idle = "idle devices over TLS";
    let plots = [
        ("CPU seconds for 10^9 bytes", sharers, true, shared(|it| it.cpu_s_per_gb)),
        ("10^9 bytes a second", sharers, true, shared(|it| it.gb_per_s)),
        (
            "Megabytes of resident memory of the hub",
            idle,
            false,
            idle_devices("RSS", |it| it.rss_bytes as f64 / 1e6),
        ),
        ("CPU seconds of the hub in an hour", idle, false, idle_devices("CPU", |it| it.cpu_s_per_hour)),
        ("Seconds until devices whose hub was killed are online again", "devices over TLS", false, back),
    ];
    let mut page = String::from(HEAD);
    let (mib, rounds) = (results.bytes >> 20, results.rounds);
    writeln!(
        page,
        "<p>The middle of {rounds} rounds, with the least and the most of them. Transfers are of {mib} MiB over loopback, both ends and \
         all between in one process. What a byte costs does not grow with their number where the line is level; what devices cost \
         grows with their number alone where it is straight.</p><p>Devices whose hub was killed are back when they say so themselves; \
         how long the product waits between attempts is part of that.</p>"
    )?;
    for (what, of, is_log, lines) in &plots {
        if lines.iter().any(|(_, points)| !points.is_empty()) {
            writeln!(page, "<h2>{what}</h2>{}", plot(of, *is_log, lines)?)?;
        }
    }
    for missing in &results.missing {
        writeln!(page, "<p class=\"missing\">missing: {}</p>", escaped(missing))?;
    }
    page.push_str("<h2>Numbers</h2>");
    table(&mut page, transfers::HEAD, transfers::rows(&results.shared))?;
    table(&mut page, devices::HEAD, devices::rows(&results.devices))?;
    table(&mut page, storm::HEAD, storm::rows(&results.storms))?;
    page.push_str("</body></html>\n");
    Ok(page)
}

/// Adds a table, unless it has no rows.
fn table<const COLUMNS: usize>(
    page: &mut String,
    head: [&str; COLUMNS],
    rows: impl Iterator<Item = [String; COLUMNS]>,
) -> anyhow::Result<()> {
    let mut rows = rows.peekable();
    if rows.peek().is_some() {
        writeln!(page, "<table><tr><th>{}</tr>", head.join("<th>"))?;
        rows.try_for_each(|cells| writeln!(page, "<tr><td>{}</tr>", cells.join("<td>")))?;
        page.push_str("</table>");
    }
    Ok(())
}

const HEAD: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Towline: what more of everything \
costs</title><style>body { font: 14px/1.45 system-ui, sans-serif; max-width: 860px; margin: 1.5rem auto; padding: 0 1rem; \
color: #1d2530; background: #fff; } h1 { font-size: 1.3rem; } h2 { font-size: 1rem; margin: 1.4rem 0 .3rem; } table { \
border-collapse: collapse; margin: .6rem 0; } th, td { padding: .1rem .7rem; text-align: right; } th:first-child, \
td:first-child { text-align: left; } .missing { color: #c0392b; }</style></head><body><h1>What more of everything costs</h1>\n";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// A plot of these lines over `of`, as SVG; `of` on a logarithmic axis, or not.
fn plot(of: &str, is_log: bool, lines: &Lines<'_>) -> anyhow::Result<String> {
    let mut svg = String::new();
    draw(&mut svg, of, is_log, lines).map_err(|error| anyhow!("a plot cannot be drawn: {error}"))?;
    Ok(svg)
}

fn draw(
    svg: &mut String,
    of: &str,
    is_log: bool,
    lines: &Lines<'_>,
) -> Result<(), Box<dyn std::error::Error>> {
    let place = |count: f64| if is_log { count.log10() } else { count };
    let points = || lines.iter().flat_map(|(_, points)| points);
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::MIN_POSITIVE, f64::max);
    let last = most(&mut points().map(|&(x, _)| place(x)));
    let top = most(&mut points().map(|(_, y)| y.max));
    let area = SVGBackend::with_string(svg, (820, 320)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..last * 1.05, 0.0..top * 1.1)?;
    let count = |at: &f64| short(if is_log { 10_f64.powf(*at) } else { *at });
    let value = |value: &f64| short(*value);
    chart
        .configure_mesh()
        .x_desc(of)
        .x_labels(5)
        .x_label_formatter(&count)
        .y_label_formatter(&value)
        .draw()?;
    for (index, (name, points)) in lines.iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        let placed = || points.iter().map(|&(x, y)| (place(x), y.median));
        let series = chart.draw_series(LineSeries::new(placed(), color.stroke_width(2)))?;
        series.label(*name).legend(move |at| Circle::new(at, 4, color.filled()));
        chart.draw_series(placed().map(|point| Circle::new(point, 3, color.filled())))?;
        let range = |&(x, y): &(f64, Spread)| PathElement::new([(place(x), y.min), (place(x), y.max)], color);
        chart.draw_series(points.iter().filter(|(_, y)| y.min < y.max).map(range))?;
    }
    chart.configure_series_labels().border_style(BLACK.mix(0.3)).background_style(WHITE.mix(0.8)).draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_plot_of_each_cost_and_says_what_is_missing() {
        let spread = |rounds: &[f64]| Spread::of(rounds.iter().copied()).unwrap();
        let points = vec![
            Transfer { count: 1, gb_per_s: spread(&[0.5]), cpu_s_per_gb: spread(&[2.0]) },
            Transfer { count: 1000, gb_per_s: spread(&[0.4, 0.3, 0.5]), cpu_s_per_gb: spread(&[2.5]) },
        ];
        let mut results = Results {
            bytes: 1 << 20,
            rounds: 1,
            shared: vec![Shared { what: "tunnels", points }],
            devices: vec![
                Devices { count: 500, rss_bytes: 20_000_000, heap_bytes: 5_000_000, cpu_s_per_hour: 30.0 },
                Devices { count: 1000, rss_bytes: 24_500_000, heap_bytes: 8_000_000, cpu_s_per_hour: 50.0 },
            ],
            storms: vec![Storm {
                count: 1000,
                listens_s: spread(&[0.1]),
                half_s: spread(&[1.0, 2.0, 4.0]),
                p99_s: spread(&[5.0]),
                all_s: spread(&[6.0]),
                hub_cpu_s_each: spread(&[0.003]),
                device_cpu_s_each: spread(&[0.007]),
            }],
            missing: vec!["10 tunnels: <it> failed".into()],
        };
        let shown = page(&results).unwrap();
        assert_eq!(shown.matches("<svg").count(), 5, "{shown}");
        assert!(shown.contains("<tr><td>1000<td>24.5<td>9000<td>8.00<td>6000<td>50.0"), "{shown}");
        assert!(shown.contains("<tr><td>tunnels<td>1000<td>0.400 (0.300..0.500)<td>2.50</tr>"), "{shown}");
        let row = "<tr><td>1000<td>0.100<td>2.00 (1.00..4.00)<td>5.00<td>6.00<td>3.00<td>7.00</tr>";
        assert!(shown.contains(row), "{shown}");
        assert!(shown.contains("missing: 10 tunnels: &lt;it> failed"));
        assert!(!shown.contains("src=") && !shown.contains("href="), "it needs nothing else");
        results.devices.clear();
        results.storms.clear();
        let shown = page(&results).unwrap();
        assert_eq!((shown.matches("<svg").count(), shown.matches("<table>").count()), (2, 1), "{shown}");
    }
}
