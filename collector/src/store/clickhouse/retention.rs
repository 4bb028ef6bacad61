//! Has go what is too old: windows when they were added up, or could not be for a week, sums by the day and by the week. Servers that know TTL have it go by themselves
//! where no collector does, a while later.

use super::Keep;
use super::levels::History;
use super::rows::{DAY_HOURS, WEEK_HOURS, day};
use super::schema::UNATTENDED_DAYS;
use super::server::{Failure, Server};

/// Has go what is older than it is to be kept.
///
/// # Errors
/// Where the server cannot.
pub(super) fn forget(
    server: &Server,
    history: &History,
    keep: Keep,
    now_unix_ns: u64,
) -> Result<(), Failure> {
    let today = u64::from(day(now_unix_ns));
    // Days count whole, and today does not.
    let oldest_hour = |days: u64| today.saturating_sub(days).saturating_mul(u64::from(DAY_HOURS));
    // A server that starts again goes on from the highest number that there is: it stays, so that none is given twice.
    let highest = history.hours().filter_map(|(_, hour)| hour.blocks).map(|(_, last)| last).max();
    for (number, hour) in history.hours() {
        let Some((_, last)) = hour.blocks else { continue };
        // Of a day of which some windows were never to be added up, none is kept longer than the others.
        let is_ready = hour.is_added_up() || hour.is_old;
        // What cannot be added up does not fill the disk.
        let is_overdue = u64::from(number) < oldest_hour(keep.windows_days.saturating_add(UNATTENDED_DAYS));
        if u64::from(number) < oldest_hour(keep.windows_days)
            && (is_ready || is_overdue)
            && Some(last) != highest
        {
            if !is_ready {
                tracing::warn!(
                    server = server.address(),
                    hour = number,
                    "windows go that were never added up"
                );
            }
            drop_partition(server, "batches", &number.to_string())?;
        }
    }
    let old_days = format!(
        "SELECT DISTINCT partition FROM system.parts WHERE database = currentDatabase() \
         AND table = 'windows' AND active AND partition < toString(toDate({}))",
        today.saturating_sub(keep.windows_days)
    );
    for day in server.rows::<String>(&old_days)? {
        drop_partition(server, "windows", &format!("'{day}'"))?;
    }
    let of_days = u64::from(DAY_HOURS);
    let of_weeks = u64::from(WEEK_HOURS);
    for (table, hours, days) in [
        ("minutes", of_days, keep.minutes_days),
        ("signal_minutes", of_days, keep.minutes_days),
        // First what says of sums that they are there.
        ("rolls", of_weeks, keep.hours_days),
        ("hours", of_weeks, keep.hours_days),
        ("signal_hours", of_weeks, keep.hours_days),
    ] {
        let partitions = format!(
            "SELECT DISTINCT partition FROM system.parts WHERE database = currentDatabase() AND table = '{table}' AND active"
        );
        for partition in server.rows::<String>(&partitions)? {
            let number: u64 = partition.parse().unwrap_or(u64::MAX);
            // All of it is older.
            if number.saturating_add(1).saturating_mul(hours) <= oldest_hour(days) {
                drop_partition(server, table, &partition)?;
            }
        }
    }
    Ok(())
}

fn drop_partition(server: &Server, table: &str, partition: &str) -> Result<(), Failure> {
    tracing::info!(server = server.address(), table, partition, "what is too old goes");
    server.execute(&format!("ALTER TABLE {table} DROP PARTITION {partition}"))
}
