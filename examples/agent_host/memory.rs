//! What agents remember: a bounded list that is searched by words, and the actor that has it.

use std::collections::VecDeque;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use super::wire::{Hit, Memory};

/// The most memories; the oldest makes room.
const MOST: usize = 1000;

/// How many characters a snippet has at most before and after the first word that was found.
const AROUND: usize = 24;

/// The memories.
#[derive(Debug, Default)]
pub(crate) struct Memories {
    given: u64,
    kept: VecDeque<Memory>,
}

impl Memories {
    fn remember(&mut self, text: String) -> u64 {
        self.given += 1;
        if self.kept.len() == MOST {
            self.kept.pop_front();
        }
        self.kept.push_back(Memory { id: self.given, text });
        self.given
    }

    fn forget(&mut self, id: u64) -> bool {
        let before = self.kept.len();
        self.kept.retain(|memory| memory.id != id);
        self.kept.len() < before
    }

    /// Finds memories by the part of the words that they have; of two that are as good, the later one is first.
    fn search(&self, query: &str, limit: usize) -> Vec<Hit> {
        let words: Vec<String> = query.split_whitespace().map(str::to_lowercase).collect();
        let mut hits: Vec<Hit> = self.kept.iter().rev().filter_map(|memory| hit(memory, &words)).collect();
        hits.sort_by(|one, other| other.score.total_cmp(&one.score));
        hits.truncate(limit);
        hits
    }
}

fn hit(memory: &Memory, words: &[String]) -> Option<Hit> {
    let own: Vec<String> = memory.text.split_whitespace().map(plain).collect();
    let first = own.iter().position(|word| words.contains(word))?;
    let had = words.iter().filter(|word| own.contains(word)).count();
    #[expect(clippy::cast_precision_loss, reason = "nobody asks with so many words")]
    let score = had as f64 / words.len() as f64;
    Some(Hit { id: memory.id, score, snippet: snippet(&memory.text, first) })
}

/// Returns a word as it is compared.
fn plain(word: &str) -> String {
    word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase()
}

/// Returns whole words around one of them.
fn snippet(text: &str, word: usize) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let fitting = |near: &mut dyn Iterator<Item = &&str>| {
        let ends = near.scan(0, |length, word| {
            *length += word.chars().count() + 1;
            Some(*length)
        });
        ends.take_while(|length| *length <= AROUND).count()
    };
    let before = fitting(&mut words[..word].iter().rev());
    let after = fitting(&mut words[word + 1..].iter());
    words[word - before..=word + after].join(" ")
}

/// What is asked of the memory.
pub(crate) enum MemoryMessage {
    Remember(String, RpcReplyPort<u64>),
    List(RpcReplyPort<Vec<Memory>>),
    Search { query: String, limit: usize, reply: RpcReplyPort<Vec<Hit>> },
    Forget(u64, RpcReplyPort<bool>),
}

/// Has the memories of all agents.
pub(crate) struct MemoryActor;

impl Actor for MemoryActor {
    type Msg = MemoryMessage;
    type State = Memories;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<MemoryMessage>, (): ()) -> Result<Memories, ActorProcessingErr> {
        Ok(Memories::default())
    }

    async fn handle(
        &self,
        _: ActorRef<MemoryMessage>,
        message: MemoryMessage,
        memories: &mut Memories,
    ) -> Result<(), ActorProcessingErr> {
        // Whoever has asked may be gone.
        match message {
            MemoryMessage::Remember(text, reply) => _ = reply.send(memories.remember(text)),
            MemoryMessage::List(reply) => _ = reply.send(memories.kept.iter().cloned().collect()),
            MemoryMessage::Search { query, limit, reply } => _ = reply.send(memories.search(&query, limit)),
            MemoryMessage::Forget(id, reply) => _ = reply.send(memories.forget(id)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_more_of_the_words_is_found_first_and_shown_around_the_first_of_them() {
        let mut memories = Memories::default();
        for text in [
            "The oven is too hot.",
            "Nothing of interest",
            "A very long note about many things, of which the oven at the back is only the last one",
            "The till, and the oven again: hot!",
        ] {
            memories.remember(text.to_owned());
        }
        let found = memories.search("Hot oven", 10);
        let shown: Vec<_> = found.iter().map(|hit| (hit.id, hit.score)).collect();
        assert_eq!(shown, [(4, 1.0), (1, 1.0), (3, 0.5)]);
        assert_eq!(found[2].snippet, "things, of which the oven at the back is only the");
        assert_eq!(memories.search("hot oven", 1).len(), 1);
        assert!(memories.search("", 10).is_empty() && memories.search("cold", 10).is_empty());
        assert!(memories.forget(4) && !memories.forget(4));
        assert_eq!(memories.search("hot oven", 1)[0].id, 1);
    }

    #[test]
    fn the_oldest_memory_makes_room() {
        let mut memories = Memories::default();
        for number in 0..=MOST {
            memories.remember(format!("note {number}"));
        }
        assert_eq!((memories.kept.len(), memories.kept[0].id), (MOST, 2));
    }
}
