//! Functions by table: the input is brought to the table's domain, clamped first where the function levels out.

use shardproof_integer::{BOUNDARY_BITS, MAX_REQUANT_BITS, MAX_TABLE_BITS, Op, Table, TableId};

use super::interval::Interval;
use super::{Emitter, HEADROOM_BITS, Value, scale_for};
use crate::quantise::error::QuantiseError;
use crate::quantise::exact::{bits_of, power_of_two};
use crate::quantise::functions::Function;
use crate::quantise::real::Tensor;

/// How far beyond the calibrated range a table goes, best first.
const HEADROOMS: [f64; 3] = [(1 << HEADROOM_BITS) as f64, 2.0, 1.25];

/// Which integers a table is made for.
#[derive(Clone, Copy)]
struct Domain {
    /// log2 of the number of entries.
    bits: u32,
    /// Of the input, as it enters the table.
    scale: i32,
    /// Whether inputs outside are clamped to it; else they end the run.
    clamped: bool,
}

impl Emitter<'_> {
    pub(super) fn function(
        &mut self,
        input: Tensor,
        function: &Function,
        result: Tensor,
    ) -> Result<Value, QuantiseError> {
        let value = self.value(input);
        let domain =
            self.domain(value, [self.calibration.magnitude(input), self.calibration.magnitude(result)], function);
        let entering = if domain.clamped {
            self.clamped(value, self.calibration.magnitude(input), domain)?
        } else {
            self.within_domain(value, domain)?
        };
        let (table, scale) = self.table(function, domain, self.calibration.magnitude(result))?;
        let values = &self.graph.tables[table.0 as usize].values;
        let (low, high) = values.iter().fold((i32::MAX, i32::MIN), |(low, high), &v| (low.min(v), high.max(v)));
        let interval = Interval { low: low.into(), high: high.into() };
        Ok(self.push(Op::Table { input: entering.id, table }, scale, |_| interval))
    }

    /// The domain covers the calibrated range with its headroom, or what is left of it where the function is not level.
    ///
    /// A function that grows steeply gets less headroom where its values could not have the bits of activations otherwise.
    fn domain(&self, value: Value, [input, result]: [f64; 2], function: &Function) -> Domain {
        let bits = self.precision.table_bits;
        let possible = value.tight.magnitude() as f64 * power_of_two(-value.scale);
        let wanted = scale_for(result, self.precision.activation_bits);
        let holds = |limit: f64| {
            let end = power_of_two(bits - 1) * power_of_two(-scale_for(limit, bits - 1));
            let largest = function.apply(end).abs().max(function.apply(-end).abs());
            largest.is_finite() && scale_for(largest, BOUNDARY_BITS) >= wanted
        };
        let reaches = HEADROOMS.map(|headroom| (input * headroom).min(possible));
        let reach = reaches.into_iter().find(|&reach| holds(reach)).unwrap_or(reaches[HEADROOMS.len() - 1]);
        let level = function.saturation(power_of_two(-(bits as i32)));
        let (limit, clamped) = match level.filter(|&level| level < reach) {
            Some(level) => (level, true),
            None => (reach, false),
        };
        let mut scale = scale_for(limit, bits - 1).min(value.scale);
        if clamped {
            // What is far beyond the domain must still be held until it is clamped.
            scale = scale.min(scale_for(input + limit, MAX_REQUANT_BITS - HEADROOM_BITS));
        }
        // A coarse input needs no fine table.
        let mut needed = bits_of((limit * power_of_two(scale)).max(1.0)) as u32 + 1;
        let highest = value.tight.shifted((value.scale - scale) as u32).high;
        if !clamped && limit == possible && highest >= 1 << (needed - 1) {
            // A domain has one integer less above zero than below; the highest value must not be the one that it lacks.
            if needed < bits { needed += 1 } else { scale -= 1 }
        }
        Domain { bits: needed.clamp(2, MAX_TABLE_BITS), scale, clamped }
    }

    fn within_domain(&mut self, value: Value, domain: Domain) -> Result<Value, QuantiseError> {
        let (shift, bits) = ((value.scale - domain.scale) as u32, domain.bits - 1);
        if shift == 0 && value.bounds.bits() <= bits {
            return Ok(value);
        }
        let half = power_of_two(domain.bits - 1) * power_of_two(-domain.scale);
        // The requantisation refuses what the table does not cover.
        self.rescaled(value, half, domain.scale, bits, false)
    }

    /// `h - 1 - relu(2h - 1 - relu(x + h))` for a domain `-h .. h`.
    fn clamped(&mut self, value: Value, magnitude: f64, domain: Domain) -> Result<Value, QuantiseError> {
        let half = 1_i128 << (domain.bits - 1);
        let shift = (value.scale - domain.scale) as u32;
        let raised = half << shift;
        let exactly = |value: i128| Interval { low: value, high: value };
        let op = Op::Combine { terms: vec![(value.id, 1)], constant: raised as i64 };
        let above = self.push(op, value.scale, |of| of(value).plus(exactly(raised)));
        let reach = magnitude + half as f64 * power_of_two(-domain.scale);
        let above = self.rescaled(above, reach, domain.scale, MAX_REQUANT_BITS, true)?;
        let mirrored = 2 * half - 1;
        let op = Op::Combine { terms: vec![(above.id, -1)], constant: mirrored as i64 };
        let below = self.push(op, domain.scale, |of| exactly(mirrored).plus(of(above).times(-1)));
        let bits = below.tight.bits().max(1);
        if bits > MAX_REQUANT_BITS {
            return Err(self.range(format!("values of {bits} bits cannot be clamped")));
        }
        let below = self.requantised(below, 0, bits, true);
        let op = Op::Combine { terms: vec![(below.id, -1)], constant: (half - 1) as i64 };
        Ok(self.push(op, domain.scale, |of| exactly(half - 1).plus(of(below).times(-1))))
    }

    /// The table of `function` and the scale of its values; the same one for the same values.
    fn table(&mut self, function: &Function, domain: Domain, magnitude: f64) -> Result<(TableId, i32), QuantiseError> {
        let half = 1_i32 << (domain.bits - 1);
        let unit = power_of_two(-domain.scale);
        let reals: Vec<f64> = (-half..half).map(|q| function.apply(f64::from(q) * unit)).collect();
        let largest = reals.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
        if !largest.is_finite() {
            return Err(self.range(format!("the function overflows on {:e}", f64::from(half) * unit)));
        }
        let fitting = scale_for(largest, BOUNDARY_BITS);
        let scale = scale_for(magnitude, self.precision.activation_bits).min(fitting);
        let factor = power_of_two(scale);
        if scale == fitting && magnitude > 0.0 && magnitude * factor < power_of_two(self.precision.activation_bits / 2)
        {
            return Err(self.range(format!(
                "its values are at most {magnitude:e} in calibration, but {largest:e} within {:e} of zero, which leaves \
                 them too few bits; clip its input or its result",
                f64::from(half) * unit
            )));
        }
        let values: Vec<i32> = reals.iter().map(|value| (value * factor).round() as i32).collect();
        let name = format!("{}, scales {} to {scale}", function.name(), domain.scale);
        let table = self.table_of(Table { name, bits: domain.bits, values });
        Ok((table, scale))
    }

    /// A table of the graph; the same one for the same values.
    pub(super) fn table_of(&mut self, table: Table) -> TableId {
        let known = self.graph.tables.iter().position(|other| other.bits == table.bits && other.values == table.values);
        let index = known.unwrap_or_else(|| {
            self.graph.tables.push(table);
            self.graph.tables.len() - 1
        });
        TableId(index as u32)
    }
}
