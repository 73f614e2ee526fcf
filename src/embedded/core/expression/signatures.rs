//! Which types operators and functions accept, and which they return.

use super::types::{Parameters, Type};

/// A type in a signature. `A` and `B` stand for any type, the same one in all of a signature.
#[derive(Debug)]
pub(super) enum Kind {
    A,
    B,
    Dyn,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    ListOf(&'static Kind),
    MapOf(&'static Kind, &'static Kind),
    TypeOf(&'static Kind),
}

use Kind::{A, B, Bool, Bytes, Double, Duration, Dyn, Int, ListOf, MapOf, String, Timestamp, TypeOf, Uint};

#[derive(Debug)]
pub(super) struct Signature {
    pub(super) is_method: bool,
    pub(super) arguments: &'static [Kind],
    pub(super) result: Kind,
}

const fn of(arguments: &'static [Kind], result: Kind) -> Signature {
    Signature { is_method: false, arguments, result }
}

const fn method(arguments: &'static [Kind], result: Kind) -> Signature {
    Signature { is_method: true, arguments, result }
}

const ADD: &[Signature] = &[
    of(&[Bytes, Bytes], Bytes),
    of(&[Double, Double], Double),
    of(&[Duration, Duration], Duration),
    of(&[Duration, Timestamp], Timestamp),
    of(&[Timestamp, Duration], Timestamp),
    of(&[Int, Int], Int),
    of(&[ListOf(&A), ListOf(&A)], ListOf(&A)),
    of(&[String, String], String),
    of(&[Uint, Uint], Uint),
];
const SUBTRACT: &[Signature] = &[
    of(&[Double, Double], Double),
    of(&[Duration, Duration], Duration),
    of(&[Int, Int], Int),
    of(&[Timestamp, Duration], Timestamp),
    of(&[Timestamp, Timestamp], Duration),
    of(&[Uint, Uint], Uint),
];
const MULTIPLY: &[Signature] = &[of(&[Double, Double], Double), of(&[Int, Int], Int), of(&[Uint, Uint], Uint)];
const MODULO: &[Signature] = &[of(&[Int, Int], Int), of(&[Uint, Uint], Uint)];
const NEGATE: &[Signature] = &[of(&[Double], Double), of(&[Int], Int)];
const COMPARE: &[Signature] = &[
    of(&[Bool, Bool], Bool),
    of(&[Int, Int], Bool),
    of(&[Uint, Uint], Bool),
    of(&[Double, Double], Bool),
    of(&[String, String], Bool),
    of(&[Bytes, Bytes], Bool),
    of(&[Timestamp, Timestamp], Bool),
    of(&[Duration, Duration], Bool),
];
/// Comparisons of numbers of different types, which are not declared everywhere.
pub(super) const MIXED: &[Signature] = &[
    of(&[Int, Double], Bool),
    of(&[Int, Uint], Bool),
    of(&[Uint, Double], Bool),
    of(&[Uint, Int], Bool),
    of(&[Double, Int], Bool),
    of(&[Double, Uint], Bool),
];
const SIZE: &[Signature] = &[
    of(&[Bytes], Int),
    method(&[Bytes], Int),
    of(&[ListOf(&A)], Int),
    method(&[ListOf(&A)], Int),
    of(&[MapOf(&A, &B)], Int),
    method(&[MapOf(&A, &B)], Int),
    of(&[String], Int),
    method(&[String], Int),
];
const TO_INT: &[Signature] = &[
    of(&[Int], Int),
    of(&[Double], Int),
    of(&[Duration], Int),
    of(&[String], Int),
    of(&[Timestamp], Int),
    of(&[Uint], Int),
];
const TO_STRING: &[Signature] = &[
    of(&[String], String),
    of(&[Bool], String),
    of(&[Bytes], String),
    of(&[Double], String),
    of(&[Duration], String),
    of(&[Int], String),
    of(&[Timestamp], String),
    of(&[Uint], String),
];
const DATE_PART: &[Signature] = &[method(&[Timestamp], Int), method(&[Timestamp, String], Int)];
const TIME_PART: &[Signature] =
    &[method(&[Timestamp], Int), method(&[Timestamp, String], Int), method(&[Duration], Int)];

/// The signatures of an operator or a function that is declared everywhere.
pub(super) fn standard(name: &str) -> Option<&'static [Signature]> {
    Some(match name {
        "+" => ADD,
        "-" => SUBTRACT,
        "*" | "/" => MULTIPLY,
        "%" => MODULO,
        "-_" => NEGATE,
        "!" => const { &[of(&[Bool], Bool)] },
        "<" => COMPARE,
        "==" => const { &[of(&[A, A], Bool)] },
        "in" => const { &[of(&[A, ListOf(&A)], Bool), of(&[A, MapOf(&A, &B)], Bool)] },
        "[]" => const { &[of(&[ListOf(&A), Int], A), of(&[MapOf(&A, &B), A], B)] },
        "?:" => const { &[of(&[Bool, A, A], A)] },
        "size" => SIZE,
        "type" => const { &[of(&[A], TypeOf(&A))] },
        "dyn" => const { &[of(&[A], Dyn)] },
        "bool" => const { &[of(&[Bool], Bool), of(&[String], Bool)] },
        "bytes" => const { &[of(&[Bytes], Bytes), of(&[String], Bytes)] },
        "double" => const { &[of(&[Double], Double), of(&[Int], Double), of(&[String], Double), of(&[Uint], Double)] },
        "duration" => const { &[of(&[Duration], Duration), of(&[String], Duration)] },
        "int" => TO_INT,
        "string" => TO_STRING,
        "timestamp" => const { &[of(&[Timestamp], Timestamp), of(&[Int], Timestamp), of(&[String], Timestamp)] },
        "uint" => const { &[of(&[Uint], Uint), of(&[Double], Uint), of(&[Int], Uint), of(&[String], Uint)] },
        "contains" | "startsWith" | "endsWith" => const { &[method(&[String, String], Bool)] },
        "matches" => const { &[of(&[String, String], Bool), method(&[String, String], Bool)] },
        "getFullYear" | "getMonth" | "getDayOfYear" | "getDayOfMonth" | "getDate" | "getDayOfWeek" => DATE_PART,
        "getHours" | "getMinutes" | "getSeconds" | "getMilliseconds" => TIME_PART,
        _ => return None,
    })
}

/// The signatures of a function of cel-go's extension for strings.
pub(super) fn of_strings(name: &str) -> Option<&'static [Signature]> {
    Some(match name {
        "charAt" => const { &[method(&[String, Int], String)] },
        "indexOf" | "lastIndexOf" => const { &[method(&[String, String], Int), method(&[String, String, Int], Int)] },
        "lowerAscii" | "upperAscii" | "trim" | "reverse" => const { &[method(&[String], String)] },
        "replace" => {
            const { &[method(&[String, String, String], String), method(&[String, String, String, Int], String)] }
        }
        "split" => {
            const { &[method(&[String, String], ListOf(&String)), method(&[String, String, Int], ListOf(&String))] }
        }
        "substring" => const { &[method(&[String, Int], String), method(&[String, Int, Int], String)] },
        "join" => const { &[method(&[ListOf(&String)], String), method(&[ListOf(&String), String], String)] },
        "format" => const { &[method(&[String, ListOf(&Dyn)], String)] },
        "strings.quote" => const { &[of(&[String], String)] },
        _ => return None,
    })
}

/// The signatures of the engine's `checksum`.
pub(super) fn checksum(is_implemented: bool) -> &'static [Signature] {
    const BOTH: &[Signature] = &[of(&[String], String), method(&[String], String)];
    if is_implemented { BOTH } else { const { &[of(&[String], String)] } }
}

/// The types of a signature: of its arguments, and of its result.
pub(super) fn instance(of: &Signature, parameters: &mut Parameters) -> (Vec<Type>, Type) {
    let (mut a, mut b) = (None, None);
    let arguments = of.arguments.iter().map(|kind| build(kind, &mut a, &mut b, parameters)).collect();
    (arguments, build(&of.result, &mut a, &mut b, parameters))
}

fn build(kind: &Kind, a: &mut Option<Type>, b: &mut Option<Type>, parameters: &mut Parameters) -> Type {
    match kind {
        Kind::A => a.get_or_insert_with(|| parameters.add()).clone(),
        Kind::B => b.get_or_insert_with(|| parameters.add()).clone(),
        Kind::Dyn => Type::Dyn,
        Kind::Bool => Type::Bool,
        Kind::Int => Type::Int,
        Kind::Uint => Type::Uint,
        Kind::Double => Type::Double,
        Kind::String => Type::String,
        Kind::Bytes => Type::Bytes,
        Kind::Timestamp => Type::Timestamp,
        Kind::Duration => Type::Duration,
        Kind::ListOf(of) => Type::list(build(of, a, b, parameters)),
        Kind::MapOf(key, value) => Type::map(build(key, a, b, parameters), build(value, a, b, parameters)),
        Kind::TypeOf(of) => Type::Meta(Some(build(of, a, b, parameters).into())),
    }
}
