package tiller

// #include "tiller.h"
import "C"

import "unsafe"

// Report is what a hook saw and did. Each row counts once for each hook point that it passed.
type Report struct {
	NFaults       int    // different faults
	Graphs        uint64 // of the hook's own context: one for each micro-batch
	ForeignGraphs uint64 // of other contexts, which passed untouched
	RowsSeen      uint64 // at hook points with a plan or a capture
	RowsEdited    uint64 // that a plan changed
	RowsNotNeeded uint64 // that the plan has nothing to do with, or leaves as they are
	RowsRefused   uint64 // left alone, as it could not be told whether the plan reaches them, or which rows they are
	RowsRestored  uint64 // put back as the model wrote them, as their edit was not finite
	RowsCaptured  uint64 // copied for you
}

func newReport(r *C.tiller_report) Report {
	return Report{
		int(r.n_faults), uint64(r.graphs), uint64(r.foreign_graphs), uint64(r.rows_seen), uint64(r.rows_edited),
		uint64(r.rows_not_needed), uint64(r.rows_refused), uint64(r.rows_restored), uint64(r.rows_captured),
	}
}

// RuleReport is what one rule of the plan in force did.
type RuleReport struct {
	Rows         uint64  // that it changed
	RowsUnjudged uint64  // on which it could not be judged
	MeanCode     float64 // of its features before the edit; NaN if it reads none
	RelativeSize float64 // mean of |x' - x| / |x| over the rows that it changed; NaN if there are none
}

// Fault is something that went wrong, and how often: rows where it is about rows, else graphs.
type Fault struct {
	Status  Status
	Message string
	Count   uint64
}

// Ledger is what a hook saw and did, with what each rule of the plan did, up to the last that did something, and everything
// that went wrong.
type Ledger struct {
	Report
	Rules  []RuleReport
	Faults []Fault
}

// newLedger copies the C ledger into Go and frees it.
func newLedger(status C.tiller_status, c *C.tiller_ledger, err *C.tiller_error) (l Ledger, e error) {
	if e = check(status, err); e != nil {
		return l, e
	}
	defer C.tiller_ledger_free(c)
	var r C.tiller_report
	r.size = C.uint32_t(unsafe.Sizeof(r))
	if e = check(C.tiller_ledger_report(c, &r, &err), err); e != nil {
		return l, e
	}
	l.Report = newReport(&r)
	for i := C.size_t(0); i < C.tiller_ledger_n_rules(c); i++ {
		var rule C.tiller_rule_report
		rule.size = C.uint32_t(unsafe.Sizeof(rule))
		if e = check(C.tiller_ledger_rule(c, i, &rule, &err), err); e != nil {
			return l, e
		}
		l.Rules = append(l.Rules, RuleReport{
			uint64(rule.rows), uint64(rule.rows_unjudged), float64(rule.mean_code), float64(rule.relative_size)})
	}
	for i := C.size_t(0); i < C.tiller_ledger_n_faults(c); i++ {
		var fault C.tiller_fault
		fault.size = C.uint32_t(unsafe.Sizeof(fault))
		if e = check(C.tiller_ledger_fault(c, i, &fault, &err), err); e != nil {
			return l, e
		}
		l.Faults = append(l.Faults, Fault{Status(fault.status), C.GoString(fault.what), uint64(fault.count)})
	}
	return l, nil
}
