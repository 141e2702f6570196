//! Staggered races: one attempt after the other, the first success wins.

use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

/// One runner; it starts after the one before has had its head start, or has failed.
pub(super) struct Runner<T, E> {
    pub(super) head_start: Duration,
    pub(super) run: Pin<Box<dyn Future<Output = Result<T, E>> + Send>>,
}

/// The first success with its index, and how those that failed before it failed. If all fail,
/// the errors in the order they came. Losers are dropped.
#[allow(clippy::type_complexity)] // said once, here
pub(super) async fn race<T, E>(
    runners: Vec<Runner<T, E>>,
) -> Result<(usize, T, Vec<(usize, E)>), Vec<(usize, E)>> {
    let mut errors = Vec::new();
    let mut running = FuturesUnordered::new();
    let mut waiting = runners.into_iter().enumerate();
    let mut next = waiting.next();
    let mut timer = Box::pin(tokio::time::sleep(Duration::ZERO));
    loop {
        if running.is_empty() {
            let Some((index, Runner { head_start, run })) = next.take() else { return Err(errors) };
            running.push(numbered(index, run));
            timer.as_mut().reset(tokio::time::Instant::now() + head_start);
            next = waiting.next();
        }
        tokio::select! {
            biased;
            Some((index, result)) = running.next() => match result {
                Ok(winner) => return Ok((index, winner, errors)),
                Err(error) => errors.push((index, error)),
            },
            () = &mut timer, if next.is_some() => {
                if let Some((index, Runner { head_start, run })) = next.take() {
                    running.push(numbered(index, run));
                    timer.as_mut().reset(tokio::time::Instant::now() + head_start);
                    next = waiting.next();
                }
            }
        }
    }
}

async fn numbered<T>(index: usize, run: Pin<Box<dyn Future<Output = T> + Send>>) -> (usize, T) {
    (index, run.await)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runner(wait: u64, result: Result<&'static str, &'static str>) -> Runner<&'static str, &'static str> {
        let run = async move {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            result
        };
        Runner { head_start: Duration::from_millis(250), run: Box::pin(run) }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_wins_within_its_head_start_even_if_the_second_would_be_faster() {
        let result = race(vec![runner(200, Ok("quic")), runner(0, Ok("websocket"))]).await;
        assert_eq!(result, Ok((0, "quic", vec![])));
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_wins_when_the_first_is_slow_and_when_it_fails() {
        let result = race(vec![runner(9_000, Ok("quic")), runner(10, Ok("websocket"))]).await;
        assert_eq!(result, Ok((1, "websocket", vec![])));
        let result = race(vec![runner(1, Err("refused")), runner(10, Ok("websocket"))]).await;
        assert_eq!(result, Ok((1, "websocket", vec![(0, "refused")])));
    }

    #[tokio::test(start_paused = true)]
    async fn all_errors_are_kept_when_nobody_wins() {
        let result = race(vec![runner(300, Err("a")), runner(10, Err("b"))]).await;
        assert_eq!(result, Err(vec![(1, "b"), (0, "a")]));
        assert_eq!(race::<(), ()>(Vec::new()).await, Err(vec![]));
    }
}
