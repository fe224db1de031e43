//! Frames that are well-formed, but not where they may be.

use super::{
    Cut, CutOrReset, FLOW_CONTROL_ERROR, PING, PRIORITY, PROTOCOL_ERROR, Reset, STREAM_CLOSED,
    Served, WHOLE, WINDOW_UPDATE, all, begun, fields, frame, get, setting,
};
use crate::support::Frame;

#[test]
fn frames_out_of_order_end_their_stream_or_connection() {
    let reset = || frame(Frame::RST_STREAM, 0, 1, 8u32.to_be_bytes());
    let data = |flags, octets: &[u8]| frame(Frame::DATA, flags, 1, octets);
    let more = |stream| frame(Frame::CONTINUATION, Frame::END_HEADERS, stream, [0x82]);
    let half = || frame(Frame::HEADERS, Frame::END_STREAM, 1, fields());
    let trailers = |flags| frame(Frame::HEADERS, flags, 1, Frame::fields(&[("x", "y")]));
    all(&[
        (
            "fields that continue nothing",
            more(1),
            Cut(&[PROTOCOL_ERROR]),
        ),
        (
            "fields that continue others",
            [half(), more(3)].concat(),
            Cut(&[PROTOCOL_ERROR]),
        ),
        (
            "a frame between fields",
            [half(), frame(PING, 0, 0, [0; 8])].concat(),
            Cut(&[PROTOCOL_ERROR]),
        ),
        (
            "an unknown frame between fields",
            [half(), frame(0x42, 0, 0, [])].concat(),
            Cut(&[PROTOCOL_ERROR]),
        ),
        (
            "an older stream",
            [get(5), get(3)].concat(),
            Cut(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        ),
        (
            "fields after the end",
            [get(1), trailers(WHOLE)].concat(),
            Cut(&[STREAM_CLOSED, PROTOCOL_ERROR]),
        ),
        (
            "DATA after the end",
            [begun(), data(Frame::END_STREAM, b""), data(0, b"x")].concat(),
            Cut(&[STREAM_CLOSED, PROTOCOL_ERROR]),
        ),
        (
            "trailers that are not the end",
            [begun(), data(0, b"x"), trailers(Frame::END_HEADERS)].concat(),
            Reset(&[PROTOCOL_ERROR]),
        ),
        ("a reset at once", [get(1), reset()].concat(), Served),
        ("two resets", [get(1), reset(), reset()].concat(), Served),
        (
            "a reset between fields",
            [half(), reset()].concat(),
            Cut(&[PROTOCOL_ERROR]),
        ),
        (
            "a reset, and what was on its way",
            [
                begun(),
                reset(),
                frame(WINDOW_UPDATE, 0, 1, [0, 0, 0, 1]),
                frame(PRIORITY, 0, 1, [0; 5]),
            ]
            .concat(),
            Served,
        ),
        (
            "windows that shrink and grow",
            [
                get(1),
                setting(4, 0),
                setting(4, 1),
                setting(4, 0x7fff_ffff),
                setting(4, 0),
                setting(4, 65_535),
            ]
            .concat(),
            Served,
        ),
        (
            "more DATA than the window",
            [begun(), vec![data(0, &[0; 16_384]); 100].concat()].concat(),
            CutOrReset(&[FLOW_CONTROL_ERROR]),
        ),
    ]);
}
