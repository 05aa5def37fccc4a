//! Messages in CBOR: they come back, unknown parts are handled as promised, bounds hold.

use legation_model::ids::{AttemptId, ReceiptId};
use legation_wire::{
    Close, GoodbyeReason,
    message::{Frame, FromDelegate, Goodbye, Stopped, ToDelegate, Work},
};
use minicbor::Encoder;

/// CBOR written by hand, as a stranger would.
fn cbor(write: impl FnOnce(&mut Encoder<&mut Vec<u8>>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut Encoder::new(&mut bytes));
    bytes
}

#[test]
fn a_message_is_its_number_and_its_fields() {
    let started = FromDelegate::Started { attempt: AttemptId([7; 16]) };
    let bytes = cbor(|e| {
        e.array(2).and_then(|e| e.u8(2)).and_then(|e| e.bytes(&[7; 16])).expect("memory");
    });
    assert_eq!(*started.encode(), bytes);
    assert_eq!(FromDelegate::decode(&bytes), Ok(started));
    assert_eq!(FromDelegate::decode(&[0x81, 0x06]), Ok(FromDelegate::Draining));
    assert_eq!(*FromDelegate::Draining.encode(), [0x81, 0x06]);
}

#[test]
fn a_refusal_that_says_no_more_is_a_verdict() {
    let mut refused = FromDelegate::Refused { attempt: AttemptId([7; 16]), reason: "no".to_owned(), again: false };
    let short = cbor(|e| {
        e.array(3).and_then(|e| e.u8(5)).and_then(|e| e.bytes(&[7; 16])).and_then(|e| e.str("no")).expect("memory");
    });
    assert_eq!(FromDelegate::decode(&short), Ok(refused.clone()));
    if let FromDelegate::Refused { again, .. } = &mut refused {
        *again = true;
    }
    let mut long = short;
    (long[0], _) = (0x84, long.push(0xf5));
    assert_eq!(*refused.encode(), long);
}

#[test]
fn fields_that_a_later_version_adds_are_skipped() {
    let later = cbor(|e| {
        e.array(4).and_then(|e| e.u8(7)).expect("memory");
        e.array(4).and_then(|e| e.bytes(&[9; 16])).and_then(|e| e.u8(3)).expect("memory");
        e.map(1).and_then(|e| e.str("new")).and_then(|e| e.array(2)).and_then(|e| e.u8(1)).expect("memory");
        e.bool(true).and_then(|e| e.null()).and_then(|e| e.u8(1)).and_then(|e| e.f64(0.5)).expect("memory");
    });
    let stopped = Stopped { receipt: ReceiptId([9; 16]), tasks_killed: 3 };
    assert_eq!(FromDelegate::decode(&later), Ok(FromDelegate::Stopped(stopped)));
}

#[test]
fn a_missing_optional_field_is_nothing_and_a_missing_needed_one_is_an_error() {
    let goodbye = cbor(|e| {
        e.array(2).and_then(|e| e.u8(1)).and_then(|e| e.array(4)).and_then(|e| e.u8(0)).expect("memory");
        e.null().and_then(|e| e.null()).and_then(|e| e.str("")).expect("memory");
    });
    let expected =
        Goodbye { reason: GoodbyeReason::TokenRevoked, receipt: None, retry_after: None, text: String::new() };
    assert_eq!(ToDelegate::decode(&goodbye), Ok(ToDelegate::Goodbye(expected)));
    assert_eq!(ToDelegate::decode(&[0x82, 0x01, 0x80]), Err(Close::BadFrame));
}

#[test]
fn an_unknown_message_closes() {
    for number in [8, 23, 200] {
        let unknown = cbor(|e| {
            e.array(1).and_then(|e| e.u8(number)).expect("memory");
        });
        assert_eq!(FromDelegate::decode(&unknown), Err(Close::BadFrame));
        assert_eq!(ToDelegate::decode(&unknown), Err(Close::BadFrame));
    }
}

#[test]
fn work_that_no_delegate_would_take_is_not_even_encoded() {
    let shell = |script: usize, stdin: usize| Work::Shell {
        script: "x".repeat(script),
        interpreter: Vec::new(),
        env: Vec::new(),
        cwd: None,
        stdin: vec![0; stdin],
    };
    let fits = shell(256 << 10, 100 << 10);
    let bytes = fits.encode().expect("within bounds");
    assert_eq!(Work::decode(&bytes), Ok(fits));
    assert!(shell((256 << 10) + 1, 0).encode().is_err());
    assert!(shell(256 << 10, 256 << 10).encode().is_err());
}
