mod support;
use support::Pebble;

#[test]
fn pebble_runs() {
    let mut pebble = Pebble::builder().env("PEBBLE_ALTERNATE_ROOTS", "2").start();
    assert_eq!(pebble.roots().len(), 3);
    pebble.resolve("a.test", &["127.0.0.2"]);
    pebble.resolve("b.test", &[]);
    let root = pebble.root();
    pebble.restart();
    assert_ne!(root, pebble.root());
    println!("{}", pebble.log());
}
