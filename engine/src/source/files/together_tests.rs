//! Several processes that number the same files.

use std::fs;

use super::listing::Listing;
use super::numbering_tests::Place;
use super::stretch::Kind;
use super::*;

/// Two processes, neither of which knows of the other when it begins: whoever comes second numbers behind the first.
#[test]
fn two_that_number_go_on_from_each_other() {
    let place = Place::new();
    fs::create_dir_all(place.path("events")).unwrap();
    let open = || Listing::open("t", place.config("events/*.csv", Reading::Draining)).unwrap();
    let (mut stream, mut load) = (open(), open());
    let names = |listing: &Listing| listing.stretches.iter().map(|s| s.file.clone()).collect::<Vec<_>>();
    place.csv("events/2.csv", &[2]);
    stream.refresh().unwrap();
    place.csv("events/1.csv", &[1]);
    load.refresh().unwrap();
    assert_eq!(names(&load).len(), 2);
    assert!(names(&load)[0].ends_with("2.csv"), "{:?}", names(&load));
    place.csv("events/3.csv", &[3]);
    stream.refresh().unwrap();
    assert!(names(&stream).starts_with(&names(&load)) && names(&stream).len() == 3, "{:?}", names(&stream));
    // What was found out of one is kept, whoever wrote meanwhile.
    load.set_kind(1, Kind::Unreadable).unwrap();
    let written = Listing::open("t", place.config("events/*.csv", Reading::Looking)).unwrap();
    let kinds: Vec<Kind> = written.stretches.iter().map(|stretch| stretch.kind).collect();
    assert_eq!(kinds, [Kind::Events, Kind::Unreadable, Kind::Events]);
}

/// All at once, while files appear in no order: everybody has the same numbers in the end, and each file one.
#[test]
fn many_that_number_at_once_agree() {
    const FILES: i64 = 24;
    let place = Place::new();
    place.csv("events/0.csv", &[0]);
    let numbered = std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 1..FILES {
                place.csv(&format!("new/{i}.csv"), &[i]);
                let name = format!("events/{}.csv", (i * 7) % FILES);
                fs::rename(place.path(&format!("new/{i}.csv")), place.path(&name)).unwrap();
            }
        });
        let number = || {
            let mut listing = Listing::open("t", place.config("events/*.csv", Reading::Draining)).unwrap();
            while listing.stretches.len() < FILES as usize {
                listing.refresh().unwrap();
            }
            listing.stretches.into_iter().map(|stretch| stretch.file).collect::<Vec<_>>()
        };
        let both = [scope.spawn(number), scope.spawn(number)];
        both.map(|thread| thread.join().unwrap())
    });
    let written = Listing::open("t", place.config("events/*.csv", Reading::Looking)).unwrap();
    let mut written: Vec<String> = written.stretches.into_iter().map(|stretch| stretch.file).collect();
    assert_eq!([&written, &written], [&numbered[0], &numbered[1]]);
    written.sort();
    written.dedup();
    assert_eq!(written.len(), FILES as usize);
}
