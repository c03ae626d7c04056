//! Which bearer tokens are accepted: the current one, for a while its predecessor, and how many failures are too many.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use tokio::sync::watch;
use tokio::time::Instant;

use super::secret::{Digest, Secret};

/// The most tokens accepted at a time.
const MOST: usize = 2;

/// What a request's token came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is accepted; the number names the token to [`Tokens::expired`].
    Accepted(u64),
    /// It is missing or wrong; which of the two is nobody's business.
    Refused,
    /// It is missing or wrong, and so were many others in the last second.
    TooMany,
}

/// The tokens of one server.
#[derive(Debug)]
pub struct Tokens {
    state: Mutex<State>,
    /// The smallest number that is accepted.
    oldest: watch::Sender<u64>,
    /// Failures that are answered as such within a second.
    most_failures: u32,
}

#[derive(Debug)]
struct State {
    /// Oldest first; never empty.
    accepted: Vec<Accepted>,
    /// When the second began in which failures are counted, and how many there were.
    failures: Option<(Instant, u32)>,
    total_failures: u64,
}

#[derive(Debug, Clone, Copy)]
struct Accepted {
    number: u64,
    digest: Digest,
    until: Option<Instant>,
}

impl Tokens {
    /// Accepts one token.
    pub fn new(first: &Secret, most_failures: u32) -> Self {
        let accepted = vec![Accepted { number: 1, digest: first.digest(), until: None }];
        let state = State { accepted, failures: None, total_failures: 0 };
        Self { state: Mutex::new(state), oldest: watch::Sender::new(1), most_failures }
    }

    /// Judges the `Authorization` of a request. The right token is accepted however many wrong ones came before it:
    /// nobody can lock others out.
    pub fn check(&self, headers: &HeaderMap, now: Instant) -> Verdict {
        let presented = bearer(headers).map(Digest::of);
        let mut state = self.state();
        state.expire(now);
        // Every token is compared, so that the time says nothing about which one was near.
        let mut found = None;
        for token in &state.accepted {
            if presented.is_some_and(|presented| presented == token.digest) {
                found = Some(token.number);
            }
        }
        self.tell(&state);
        match found {
            Some(number) => Verdict::Accepted(number),
            None if state.fail(now) > self.most_failures => Verdict::TooMany,
            None => Verdict::Refused,
        }
    }

    /// Accepts one more token, which clients are about to learn; returns its number.
    ///
    /// Beside it only the one before it is accepted on: of two rotations within the grace the first one's token goes.
    pub fn add(&self, secret: &Secret) -> u64 {
        let mut state = self.state();
        let number = state.accepted.last().map_or(1, |newest| newest.number + 1);
        state.accepted.push(Accepted { number, digest: secret.digest(), until: None });
        let surplus = state.accepted.len().saturating_sub(MOST);
        state.accepted.drain(..surplus);
        self.tell(&state);
        number
    }

    /// Accepts those before this one no longer than until then.
    pub fn retire_before(&self, number: u64, until: Instant) {
        for token in self.state().accepted.iter_mut().filter(|token| token.number < number) {
            token.until = Some(token.until.map_or(until, |earlier| earlier.min(until)));
        }
    }

    /// Takes back a token that clients could not be told of.
    pub fn withdraw(&self, number: u64) {
        let mut state = self.state();
        if state.accepted.len() > 1 {
            state.accepted.retain(|token| token.number != number);
        }
    }

    /// Forgets what is accepted no more and returns when the next one is due.
    pub fn expire(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state();
        state.expire(now);
        self.tell(&state);
        state.accepted.iter().filter_map(|token| token.until).min()
    }

    /// Waits until a token is accepted no more.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn expired(&self, number: u64) {
        // The sender is ours, so that it cannot be gone.
        _ = self.oldest.subscribe().wait_for(|oldest| *oldest > number).await;
    }

    /// Returns the number of a token, if it is accepted.
    pub fn number_of(&self, secret: &Secret) -> Option<u64> {
        let digest = secret.digest();
        self.state().accepted.iter().find(|token| token.digest == digest).map(|token| token.number)
    }

    /// Returns how many requests were refused for their token.
    pub fn failures(&self) -> u64 {
        self.state().total_failures
    }

    fn tell(&self, state: &State) {
        let oldest = state.accepted.first().map_or(0, |token| token.number);
        self.oldest.send_if_modified(|known| std::mem::replace(known, oldest) != oldest);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each critical section leaves the list valid at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn expire(&mut self, now: Instant) {
        self.accepted.retain(|token| token.until.is_none_or(|until| now < until));
    }

    /// Counts a failure; returns how many there were within a second.
    fn fail(&mut self, now: Instant) -> u32 {
        self.total_failures += 1;
        let (began, count) = match self.failures {
            Some((began, count)) if now.duration_since(began) < Duration::from_secs(1) => (began, count),
            _ => (now, 0),
        };
        let count = count.saturating_add(1);
        self.failures = Some((began, count));
        count
    }
}

/// Returns the digest of the token of a request.
pub(super) fn presented(headers: &HeaderMap) -> Option<Digest> {
    bearer(headers).map(Digest::of)
}

/// Returns the token of a request that has exactly one `Authorization`, of the scheme `Bearer`.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.as_bytes().split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn with(secret: &Secret) -> HeaderMap {
        headers(&[&format!("Bearer {}", secret.expose())])
    }

    fn secrets() -> [Secret; 3] {
        [(); 3].map(|()| Secret::generate().unwrap())
    }

    #[test]
    fn only_the_whole_token_in_one_header_of_the_right_scheme_is_accepted() {
        let now = Instant::now();
        let secret = Secret::parse("0123456789abcdefghijklmnopqrstuvwxyzABCDEFG").unwrap();
        let tokens = Tokens::new(&secret, u32::MAX);
        let text = secret.expose();
        let right = format!("Bearer {text}");
        assert_eq!(tokens.check(&headers(&[&right]), now), Verdict::Accepted(1));
        assert_eq!(tokens.check(&headers(&[&format!("bearer {text}")]), now), Verdict::Accepted(1));
        let mut wrong: Vec<Vec<String>> = vec![
            vec![],
            vec![String::new()],
            vec!["Bearer".into()],
            vec!["Bearer ".into()],
            vec![text.into()],
            vec![format!("Basic {text}")],
            vec![format!("Bearer  {text}")],
            vec![format!("Bearer\t{text}")],
            vec![format!("Bearer {text} ")],
            vec![format!("Bearer {text}{text}")],
            vec![format!("Bearer {text}="), right.clone()],
            vec![right.clone(), right.clone()],
            vec![format!("Bearer {}", &text[1..])],
            vec![format!("Bearer {}", text.to_uppercase())],
            vec![format!("Bearer {}", "x".repeat(9000))],
        ];
        for position in 0..text.len() {
            let mut near = text.as_bytes().to_vec();
            near[position] ^= 1;
            wrong.push(vec![format!("Bearer {}", String::from_utf8(near).unwrap())]);
        }
        for values in wrong {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            assert_eq!(tokens.check(&headers(&values), now), Verdict::Refused, "{values:?}");
        }
    }

    #[test]
    fn after_a_rotation_the_old_token_is_accepted_for_the_grace_and_not_longer() {
        let [old, new, _] = secrets();
        let (tokens, now) = (Tokens::new(&old, 10), Instant::now());
        let number = tokens.add(&new);
        tokens.retire_before(number, now + GRACE);
        let before = now + GRACE - Duration::from_nanos(1);
        assert_eq!(tokens.expire(before), Some(now + GRACE));
        assert_eq!(tokens.check(&with(&old), before), Verdict::Accepted(1));
        assert_eq!(tokens.check(&with(&old), now + GRACE), Verdict::Refused);
        assert_eq!(tokens.check(&with(&new), now + GRACE), Verdict::Accepted(2));
        assert_eq!(tokens.expire(now + GRACE), None);
    }

    #[test]
    fn of_two_rotations_within_the_grace_the_oldest_token_goes_at_once() {
        let [first, second, third] = secrets();
        let (tokens, now) = (Tokens::new(&first, 10), Instant::now());
        for secret in [&second, &third] {
            let number = tokens.add(secret);
            tokens.retire_before(number, now + GRACE);
        }
        assert_eq!(tokens.check(&with(&first), now), Verdict::Refused);
        assert_eq!(tokens.check(&with(&second), now), Verdict::Accepted(2));
        assert_eq!(tokens.check(&with(&third), now), Verdict::Accepted(3));
    }

    #[test]
    fn a_token_that_was_taken_back_leaves_the_old_one_without_an_end() {
        let [old, new, _] = secrets();
        let (tokens, now) = (Tokens::new(&old, 10), Instant::now());
        let number = tokens.add(&new);
        tokens.withdraw(number);
        assert_eq!(tokens.check(&with(&new), now), Verdict::Refused);
        assert_eq!(tokens.check(&with(&old), now + GRACE * 1000), Verdict::Accepted(1));
    }

    #[test]
    fn too_many_failures_within_a_second_are_told_and_lock_nobody_out() {
        let [secret, ..] = secrets();
        let (tokens, now) = (Tokens::new(&secret, 10), Instant::now());
        for _ in 0..10 {
            assert_eq!(tokens.check(&headers(&[]), now), Verdict::Refused);
        }
        assert_eq!(tokens.check(&headers(&["Bearer x"]), now), Verdict::TooMany);
        assert_eq!(tokens.check(&with(&secret), now), Verdict::Accepted(1));
        assert_eq!(tokens.check(&headers(&[]), now + Duration::from_secs(1)), Verdict::Refused);
        assert_eq!(tokens.failures(), 12);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_the_end_of_a_token_is_told() {
        let [old, new, _] = secrets();
        let tokens = Tokens::new(&old, 10);
        let number = tokens.add(&new);
        let until = Instant::now() + GRACE;
        tokens.retire_before(number, until);
        let waiting = async {
            tokens.expired(1).await;
            Instant::now()
        };
        let expiring = async {
            tokio::time::sleep_until(until).await;
            tokens.expire(Instant::now());
            std::future::pending::<()>().await;
        };
        let told = tokio::select! { told = waiting => told, () = expiring => unreachable!("it is pending") };
        assert_eq!(told, until);
    }
}
