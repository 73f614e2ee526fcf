//! Log lines.

use crate::embedded::core::store::Code;
use crate::embedded::core::tests::*;

#[test]
fn lines_that_cannot_be_stored_are_rejected() {
    let mut bench = Bench::new(Quirks::none());
    let id = bench.started(task());
    for (message, expected) in [("a line\nand another", Ok(())), ("a\0b", Err(Code::Internal))] {
        let put = bench.turn(|core, turn| core.put_log(turn, id, message, None, "null", None));
        assert_eq!(put.map_err(|rejected| rejected.code), expected);
    }
    for (metadata, kind) in [("5", "number"), ("true", "bool"), (r#""x""#, "string"), ("[1]", "array")] {
        let rejected = bench.turn(|core, turn| core.put_log(turn, id, "x", None, metadata, None)).unwrap_err();
        let expected = format!(
            "Invalid metadata JSON: json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
        );
        assert_eq!((rejected.code, rejected.message), (Code::InvalidArgument, expected));
    }
    assert_eq!(bench.task(id).logs.len(), 1);
}
