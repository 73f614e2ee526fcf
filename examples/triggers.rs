//! Starts runs with an event, a schedule and a cron.
//!
//! ```text
//! cargo run --example triggers
//! ```
//!
//! If `HATCHET_CLIENT_TOKEN` is set, the example runs against a real Hatchet server.
#![expect(clippy::print_stdout, reason = "examples print to the terminal")]

use std::error::Error;
use std::time::{Duration, SystemTime};

use hatchet::embedded::Engine;
use hatchet::model::{CronSpec, Window};
use hatchet::{Client, Context, Task};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

#[derive(Serialize, Deserialize)]
struct Mail {
    to: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let engine = if std::env::var_os("HATCHET_CLIENT_TOKEN").is_none() { Some(Engine::start().await?) } else { None };
    let hatchet = engine.as_ref().map_or_else(Client::from_env, |engine| Ok(engine.client()))?;
    let mail = Task::new("triggers-mail", async |mail: Mail, _: Context| Ok(format!("sent to {}", mail.to)))
        .on_event("triggers:signed-up");
    let worker = hatchet.worker("mails").register(&mail).build()?.start().await?;

    // An event starts a run of each workflow that listens to its key. The payload is the input.
    let event = hatchet.push("triggers:signed-up", &Mail { to: "ada@example.com".into() }).send().await?;
    for run in event.runs().await? {
        println!("{}: {}", run.details().await?.trigger, run.typed::<String>().result().await?);
    }

    // A schedule starts one run. `chrono::DateTime<Utc>` is the type of the time.
    #[expect(clippy::disallowed_methods, reason = "the engine uses the machine's clock, too")]
    let in_a_second = (SystemTime::now() + Duration::from_secs(1)).into();
    let schedule = hatchet.schedule(&mail, &Mail { to: "bo@example.com".into() }, in_a_second).send().await?;
    let run = loop {
        match schedule.run().await? {
            Some(run) => break run,
            None => sleep(Duration::from_millis(200)).await,
        }
    };
    println!("{}: {}", run.details().await?.trigger, run.result().await?);

    // A cron starts a run at each of its times. This one has six fields, the first of which is for seconds.
    let spec = CronSpec::new("triggers-every-second", "* * * * * *");
    let cron = hatchet.cron(&mail, &Mail { to: "all@example.com".into() }, spec).send().await?;
    sleep(Duration::from_secs(3)).await;
    cron.delete().send().await?;
    let runs = cron.runs(Window::last(Duration::from_secs(60)));
    println!("cron: {} runs", runs.count().await?);

    println!("{}", worker.shutdown().await);
    if let Some(engine) = engine {
        engine.shutdown().await;
    }
    Ok(())
}
