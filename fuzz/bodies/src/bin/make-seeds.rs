//! Writes the seeds to `fuzz/seeds/`, and takes away what is none.

use std::path::Path;

fn main() -> std::io::Result<()> {
    for target in towline_fuzz_bodies::TARGETS {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds").join(target.name);
        if directory.exists() {
            std::fs::remove_dir_all(&directory)?;
        }
        std::fs::create_dir_all(&directory)?;
        let seeds = towline_fuzz_bodies::seeds::of(target.name).expect("each target has seeds");
        for (name, input) in &seeds {
            std::fs::write(directory.join(name), input)?;
        }
        println!("{}: {} seeds", target.name, seeds.len());
    }
    Ok(())
}
