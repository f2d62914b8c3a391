use super::arguments::{Report, choice, expect_len, report, slice, slice_mut};
use super::error::tiller_status;
use super::guard::{ErrorOut, guard};
use crate::error::Result;
use crate::progress::silent;
use crate::train::Rows;
use crate::train::vector::{Method, direction};

/// How well a direction tells the rows apart that it was made from.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_direction_report {
    /// Set it to sizeof(tiller_direction_report) before the call.
    pub size: u32,
    /// Always 0.
    pub reserved: u32,
    /// Share of pairs whose positive row lies further along the direction; NaN if the rows are no pairs.
    pub agreement: f64,
    /// Distance of the two means along the direction, in standard deviations.
    pub separation: f64,
    /// Of a principal axis: its share of the sum of squares; else NaN.
    pub explained: f64,
}

// SAFETY: `repr(C)`, a `u32` first.
unsafe impl Report for tiller_direction_report {
    const NAME: &'static str = "tiller_direction_report";
}

/// The direction from negative to positive rows, for tiller_control_vector_add(): `n` = d_model floats. Both kinds of rows
/// are given one after another. `method`: 0 difference of the means; 1 mean of the differences of pairs (CAA); 2 first
/// principal axis of these differences as they are (llama.cpp's generator); 3 around their mean (repeng's pca_diff). For 1
/// to 3, row i of both is a pair. Means keep their length; axes have norm 1 and point to the positive rows. `given` may be
/// NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_direction(
    positive: *const f32,
    n_positive: usize,
    negative: *const f32,
    n_negative: usize,
    d_model: usize,
    method: u32,
    threads: u32,
    values: *mut f32,
    n: usize,
    given: *mut tiller_direction_report,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        // SAFETY: the header requires as many floats.
        let (up, down) =
            unsafe { (slice(positive, n_positive, "positive")?, slice(negative, n_negative, "negative")?) };
        let method = choice(method, &Method::ALL, "method")?;
        let rows =
            |data, name: &str| -> Result<Rows<'_>> { Rows::from_slice(d_model, data).map_err(|e| e.context(name)) };
        let (up, down) = (rows(up, "positive")?, rows(down, "negative")?);
        expect_len(n, d_model, "values")?;
        let found = direction(&up, &down, method, (threads as usize).max(1), &mut silent)?;
        // SAFETY: the header requires `n` writable floats.
        unsafe { slice_mut(values, n, "values") }?.copy_from_slice(&found.values);
        if given.is_null() {
            return Ok(());
        }
        let all = tiller_direction_report {
            size: 0,
            reserved: 0,
            agreement: found.agreement,
            separation: found.separation,
            explained: found.explained,
        };
        // SAFETY: the header requires a struct whose `size` is set.
        unsafe { report(given, all) }
    })
}
