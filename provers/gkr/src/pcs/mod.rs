//! Polynomial commitments: WHIR over Goldilocks.
