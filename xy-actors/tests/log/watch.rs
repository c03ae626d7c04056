//! A watch sees every line of one incarnation, however small memory is and whatever else is attached.

use std::io::Write as _;
use std::ops::ControlFlow;

use tokio::sync::{mpsc, oneshot};
use xy_actors::log::{LineWatch, LogSettings, Stream};

use crate::{attach, attach_watched, in_memory, read_to_end, soon, write_numbers};

#[tokio::test]
async fn a_watch_sees_every_line_of_its_incarnation_and_of_no_other() {
    const LINES: u64 = 200_000;
    let log = in_memory(LogSettings { buffer: 0, ..LogSettings::default() });
    let (other, mut noise, _err) = attach(&log, 1);
    noise.write_all(b"before").unwrap();
    let (seen, counts) = oneshot::channel();
    let mut seen = Some(seen);
    let (mut numbers, mut errors, mut is_cut) = (0, Vec::new(), false);
    let watch = LineWatch::new(move |line| {
        match line.stream {
            Stream::Out => {
                assert_eq!(line.bytes, numbers.to_string().as_bytes());
                numbers += 1;
            }
            _ => errors.push((line.bytes.to_vec(), line.partial)),
        }
        is_cut |= line.partial;
        // Nobody says which of two pipes is read first.
        if is_cut && numbers == LINES {
            let _ = seen.take().unwrap().send((numbers, std::mem::take(&mut errors)));
        }
        ControlFlow::Continue(())
    });
    let (attachment, out, mut err) = attach_watched(&log, 2, watch);
    write_numbers(out, 0..LINES).join().unwrap();
    noise.write_all(b" and after\nnoise\n").unwrap();
    err.write_all(b"first\nla").unwrap();
    err.write_all(b"st").unwrap();
    drop(err);
    read_to_end(attachment).await;
    let (numbers, errors) = soon(counts).await.unwrap();
    assert_eq!(errors, [(b"first".to_vec(), false), (b"last".to_vec(), true)]);
    assert_eq!(numbers, LINES);
    drop(other);
}

#[tokio::test]
async fn a_watch_that_has_seen_enough_or_panics_is_dropped_and_the_log_goes_on() {
    let log = in_memory(LogSettings::default());
    for breaks in [true, false] {
        let (calls, mut called) = mpsc::channel(10);
        let watch = LineWatch::new(move |line| {
            calls.try_send(line.bytes.to_vec()).unwrap();
            assert!(breaks, "this watch has a defect");
            ControlFlow::Break(())
        });
        let (attachment, mut out, err) = attach_watched(&log, 1, watch);
        out.write_all(b"one\ntwo\nthree").unwrap();
        drop((out, err));
        read_to_end(attachment).await;
        assert_eq!(soon(called.recv()).await, Some(b"one".to_vec()));
        assert_eq!(soon(called.recv()).await, None);
    }
    assert_eq!(log.health().lines, 6);
}

#[tokio::test]
async fn the_end_of_the_output_drops_its_watch() {
    let log = in_memory(LogSettings::default());
    let (never_sent, dropped) = oneshot::channel::<()>();
    let watch = LineWatch::new(move |_| {
        let _owned = &never_sent;
        ControlFlow::Continue(())
    });
    let (_attachment, out, err) = attach_watched(&log, 1, watch);
    drop((out, err));
    assert!(soon(dropped).await.is_err());
}
