//! The page: a plot of each cost over how many there are, on logarithmic axes, and the numbers.

use std::fmt::Write;

use anyhow::anyhow;
use plotters::prelude::{
    BLACK, ChartBuilder, Circle, Color, IntoDrawingArea, IntoLogRange, LineSeries, Palette, Palette99,
    SVGBackend, WHITE,
};

use super::{Devices, Results, Shared, Transfer};
use crate::stats::short;

/// Lines of a plot, each with its name and its points.
type Lines<'a> = Vec<(&'a str, Vec<(f64, f64)>)>;

pub(super) fn page(results: &Results) -> anyhow::Result<String> {
    let shared = |value: fn(&Transfer) -> f64| -> Lines<'_> {
        let points = |shared: &Shared| shared.points.iter().map(|it| (it.count as f64, value(it))).collect();
        results.shared.iter().map(|shared| (shared.what, points(shared))).collect()
    };
    let devices = |name, value: fn(&Devices) -> f64| -> Lines<'_> {
        vec![(name, results.devices.iter().map(|it| (it.count as f64, value(it))).collect())]
    };
    let plots = [
        (
            "CPU seconds for 10^9 bytes",
            "streams, tunnels or connections that share them",
            shared(|it| it.cpu_s_per_gb),
        ),
        ("10^9 bytes a second", "streams, tunnels or connections that share them", shared(|it| it.gb_per_s)),
        (
            "Bytes of resident memory of the hub for each device",
            "idle devices over TLS",
            devices("RSS", |it| it.rss_bytes),
        ),
        (
            "CPU milliseconds of the hub for each device and hour",
            "idle devices over TLS",
            devices("CPU", |it| it.cpu_ms_per_hour),
        ),
    ];
    let mut page = String::from(HEAD);
    let mib = results.bytes >> 20;
    writeln!(
        page,
        "<p>Transfers of {mib} MiB over loopback, both ends and all between in one process; the middle of {} rounds. A cost \
         that does not grow with the number is a level line.</p>",
        results.rounds
    )?;
    for (what, of, lines) in &plots {
        if lines.iter().any(|(_, points)| !points.is_empty()) {
            writeln!(page, "<h2>{what}</h2>{}", plot(of, lines)?)?;
        }
    }
    for missing in &results.missing {
        writeln!(page, "<p class=\"missing\">missing: {}</p>", escaped(missing))?;
    }
    page.push_str("<h2>Numbers</h2><table><tr><th>shared by<th>count<th>GB/s<th>CPU s/GB</tr>");
    for Shared { what, points } in &results.shared {
        for Transfer { count, gb_per_s, cpu_s_per_gb } in points {
            let (rate, cost) = (short(*gb_per_s), short(*cpu_s_per_gb));
            writeln!(page, "<tr><td>{what}<td>{count}<td>{rate}<td>{cost}</tr>")?;
        }
    }
    page.push_str("</table><table><tr><th>devices<th>RSS B<th>heap B<th>CPU ms an hour</tr>");
    for Devices { count, rss_bytes, heap_bytes, cpu_ms_per_hour } in &results.devices {
        let [rss, heap, cpu] = [rss_bytes, heap_bytes, cpu_ms_per_hour].map(|value| short(*value));
        writeln!(page, "<tr><td>{count}<td>{rss}<td>{heap}<td>{cpu}</tr>")?;
    }
    page.push_str("</table></body></html>\n");
    Ok(page)
}

const HEAD: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Towline: what more of everything \
costs</title><style>body { font: 14px/1.45 system-ui, sans-serif; max-width: 860px; margin: 1.5rem auto; padding: 0 1rem; \
color: #1d2530; background: #fff; } h1 { font-size: 1.3rem; } h2 { font-size: 1rem; margin: 1.4rem 0 .3rem; } table { \
border-collapse: collapse; margin: .6rem 0; } th, td { padding: .1rem .7rem; text-align: right; } th:first-child, \
td:first-child { text-align: left; } .missing { color: #c0392b; }</style></head><body><h1>What more of everything costs</h1>\n";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// A plot of these lines over `of`, as SVG.
fn plot(of: &str, lines: &Lines<'_>) -> anyhow::Result<String> {
    let mut svg = String::new();
    draw(&mut svg, of, lines).map_err(|error| anyhow!("a plot cannot be drawn: {error}"))?;
    Ok(svg)
}

fn draw(svg: &mut String, of: &str, lines: &Lines<'_>) -> Result<(), Box<dyn std::error::Error>> {
    let points = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::MIN_POSITIVE, f64::max);
    let (last, top) = (most(&mut points().map(|point| point.0)), most(&mut points().map(|point| point.1)));
    let first = points().map(|point| point.0).fold(last, f64::min);
    let area = SVGBackend::with_string(svg, (820, 320)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(60)
        .build_cartesian_2d((first * 0.9..last * 1.1).log_scale(), 0.0..top * 1.1)?;
    let label = |value: &f64| short(*value);
    chart.configure_mesh().x_desc(of).x_label_formatter(&label).y_label_formatter(&label).draw()?;
    for (index, (name, points)) in lines.iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        let series = LineSeries::new(points.iter().copied(), color.stroke_width(2));
        chart.draw_series(series)?.label(*name).legend(move |at| Circle::new(at, 4, color.filled()));
        chart.draw_series(points.iter().map(|&point| Circle::new(point, 3, color.filled())))?;
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
        let points = vec![
            Transfer { count: 1, gb_per_s: 0.5, cpu_s_per_gb: 2.0 },
            Transfer { count: 1000, gb_per_s: 0.4, cpu_s_per_gb: 2.5 },
        ];
        let mut results = Results {
            bytes: 1 << 20,
            rounds: 1,
            shared: vec![Shared { what: "tunnels", points }],
            devices: vec![Devices {
                count: 2000,
                rss_bytes: 9000.0,
                heap_bytes: 7000.0,
                cpu_ms_per_hour: 30.0,
            }],
            missing: vec!["10 tunnels: <it> failed".into()],
        };
        let shown = page(&results).unwrap();
        assert_eq!(shown.matches("<svg").count(), 4, "{shown}");
        assert!(shown.contains("missing: 10 tunnels: &lt;it> failed"));
        assert!(!shown.contains("src=") && !shown.contains("href="), "it needs nothing else");
        results.devices.clear();
        assert_eq!(page(&results).unwrap().matches("<svg").count(), 2);
    }
}
