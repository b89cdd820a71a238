//! Listeners: subscribers that are no connection.
#![forbid(unsafe_code)]

use crate::common::script::Event;
use crate::common::world::*;
use wingbeat::engine::{SubscribeError, TooManyListeners, TopicListenerId};
use wingbeat::{Message, Scope};

fn with<T>(world: &mut World, act: impl FnOnce(&mut Scope<'_>) -> T) -> T {
    world.workers[0].with(|_, scope| act(scope))
}

/// A listener of topic `t`.
fn listener(world: &mut World) -> TopicListenerId {
    with(world, |scope| {
        let id = scope.listen().expect("within the limits");
        scope.listener_subscribe(id, "t").expect("within the limits");
        id
    })
}

/// What listeners heard, and was not looked at before.
fn heard(world: &World) -> Vec<(TopicListenerId, String, String)> {
    let events = world.take_events().into_iter();
    let heard = events.filter_map(|event| match event {
        Event::Heard(id, topic, text) => Some((id, topic, text)),
        _ => None,
    });
    heard.collect()
}

fn texts(world: &World, id: TopicListenerId) -> Vec<String> {
    heard(world).into_iter().filter(|(to, ..)| *to == id).map(|(.., text)| text).collect()
}

#[test]
fn a_listener_hears_what_connections_get() {
    let mut world = World::one(config());
    let (a, b) = (listener(&mut world), listener(&mut world));
    assert_ne!(a, b);
    let mut raws = [world.open_with(1, "sub t"), world.open_with(2, "subas 1 t")];
    world.take_events();
    raws[0].text("tell t one;tell t two;tell nobody three");
    world.settle();
    let heard = heard(&world);
    for id in [a, b] {
        let mine = heard.iter().filter(|(to, ..)| *to == id).map(|(_, topic, text)| (topic.as_str(), text.as_str()));
        assert_eq!(mine.collect::<Vec<_>>(), [("t", "one"), ("t", "two")]);
    }
    assert_eq!(raws[0].read().texts(), ["one", "two"]);
    assert_eq!(raws[1].read().texts(), ["1:t:one", "1:t:two"]);
    with(&mut world, |scope| [a, b].map(|id| scope.listener_close(id)));
    raws.iter().for_each(|raw| raw.peer.close());
    world.settle();
    world.assert_quiet();
}

#[test]
fn a_listener_that_publishes_may_leave_itself_out() {
    let mut world = World::one(config());
    let (a, b) = (listener(&mut world), listener(&mut world));
    let mut raw = world.open_with(1, "sub t");
    world.take_events();
    let published = with(&mut world, |scope| scope.publish_from_listener(a, "t", Message::text("x")));
    world.settle();
    assert_eq!((published.local, raw.read().texts()), (3, vec!["x"]));
    assert_eq!(heard(&world), [(b, "t".to_owned(), "x".to_owned())]);
    // From within the callback, too.
    raw.text("tell t !answer");
    world.settle();
    assert_eq!(raw.read().texts(), ["x", "!answer", "heard", "heard"]);
    let heard: Vec<_> = heard(&world).into_iter().map(|(id, _, text)| (id, text)).collect();
    let of = |id, text: &str| heard.iter().filter(|heard| heard.0 == id && heard.1 == text).count();
    assert_eq!((of(a, "heard"), of(b, "heard"), heard.len()), (1, 1, 4));
}

#[test]
fn subscriptions_of_a_listener_end_one_by_one_and_with_it() {
    let mut world = World::one(config());
    let id = listener(&mut world);
    let publish = |world: &mut World, text: &str| {
        with(world, |scope| ["t", "u"].map(|topic| scope.publish(topic, Message::text(text)).local))
    };
    with(&mut world, |scope| scope.listener_subscribe(id, "u")).unwrap();
    assert_eq!(publish(&mut world, "1"), [1, 1]);
    let ended = with(&mut world, |scope| ["t", "t"].map(|topic| scope.listener_unsubscribe(id, topic)));
    assert_eq!((ended, publish(&mut world, "2")), ([true, false], [0, 1]));
    world.settle();
    assert_eq!(texts(&world, id), ["1", "1", "2"], "what was published before is heard");
    publish(&mut world, "3");
    with(&mut world, |scope| scope.listener_close(id));
    assert_eq!(publish(&mut world, "4"), [0, 0]);
    world.settle();
    assert_eq!((texts(&world, id).len(), world.counters().messages_undelivered), (0, 1));
    // The id means nothing any more, whoever has its place now.
    let next = listener(&mut world);
    let outcomes = with(&mut world, |scope| {
        scope.listener_close(id);
        (scope.listener_subscribe(id, "t"), scope.listener_unsubscribe(id, "t"))
    });
    assert_eq!(outcomes, (Err(SubscribeError::NoSubscriber), false));
    assert_eq!(publish(&mut world, "5"), [1, 0]);
    world.settle();
    assert_eq!(texts(&world, next), ["5"]);
    with(&mut world, |scope| scope.listener_close(next));
    world.settle();
    world.assert_quiet();
}

#[test]
fn a_listener_may_end_or_panic_in_its_own_callback() {
    let mut world = World::one(config());
    let id = listener(&mut world);
    for text in ["1", "!panic", "2", "!stop", "3"] {
        with(&mut world, |scope| scope.publish("t", Message::text(text)));
    }
    world.settle();
    assert_eq!(texts(&world, id), ["1", "!panic", "2", "!stop"]);
    let counters = world.counters();
    assert_eq!((counters.panics, counters.messages_sent, counters.messages_undelivered), (1, 4, 1));
    world.assert_quiet();
}

#[test]
fn limits_of_listeners_and_their_subscriptions() {
    let mut limited = config();
    (limited.limits.listeners, limited.limits.subscriptions) = (2, 1);
    let mut world = World::one(limited);
    let (a, _) = (listener(&mut world), listener(&mut world));
    assert_eq!(with(&mut world, |scope| scope.listen()), Err(TooManyListeners));
    let outcome = with(&mut world, |scope| scope.listener_subscribe(a, "u"));
    assert_eq!(outcome, Err(SubscribeError::TooManySubscriptions));
    with(&mut world, |scope| scope.listener_close(a));
    assert!(with(&mut world, |scope| scope.listen()).is_ok());
}

/// A listener hears other workers, and is known to its own alone.
#[test]
fn a_listener_is_of_one_worker() {
    let mut world = World::new(3, config(), 2);
    let id = listener(&mut world);
    let elsewhere = world.workers[1].with(|_, scope| {
        let published = scope.publish_from_listener(id, "t", Message::text("from 1"));
        (published.workers, scope.listener_subscribe(id, "t"))
    });
    assert_eq!(elsewhere, (1, Err(SubscribeError::NoSubscriber)));
    world.settle();
    assert_eq!(texts(&world, id), ["from 1"]);
    world.handle.publish("t", Message::text("from outside"));
    world.settle();
    assert_eq!(texts(&world, id), ["from outside"]);
}
