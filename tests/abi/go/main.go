// The cases of cases.tsv through the Go binding.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"tiller"
)

// ---- Handles by name ----

var handles = map[string]any{}

func get[T any](name string) T {
	handle, ok := handles[name].(T)
	if !ok {
		panic(fmt.Sprintf("no such handle: %s", name))
	}
	return handle
}

// keep puts what a call made under a name.
func keep[T any](name string, made T, err error) (T, error) {
	if err == nil {
		handles[name] = made
	}
	return made, err
}

// kept is keep where nothing more comes out.
func kept[T any](name string, made T, err error) (string, error) {
	_, err = keep(name, made, err)
	return "", err
}

// ---- What goes in and comes out: lists are parted by spaces, "-" is none ----

func words(s string) []string {
	if s == "-" {
		return nil
	}
	return strings.Fields(s)
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

func float(s string) float32 {
	x, err := strconv.ParseFloat(s, 32)
	if err != nil {
		panic(err)
	}
	return float32(x)
}

func list[T any](s string, read func(string) T) []T {
	var all []T
	for _, word := range words(s) {
		all = append(all, read(word))
	}
	return all
}

func floats(s string) []float32 { return list(s, float) }

func numbers(s string) []uint32 { return list(s, func(s string) uint32 { return uint32(number(s)) }) }

// rows reads "position:sequence:generated:token:shared,shared …"; what is left out, or no number, is not known, or none.
func rows(s string) []tiller.Row {
	return list(s, func(s string) (r tiller.Row) {
		part := append(strings.Split(s, ":"), "-", "")
		r.Position, r.Phase = int32(number(part[0])), tiller.Phase(number(part[2]))
		if r.HasToken = part[3] != "-"; r.HasToken {
			r.Token = int32(number(part[3]))
		}
		if id := number(part[1]); id >= 0 {
			r.Sequences = append(r.Sequences, int32(id))
		}
		for _, id := range strings.FieldsFunc(part[4], func(c rune) bool { return c == ',' || c == '-' }) {
			r.Sequences = append(r.Sequences, int32(number(id)))
		}
		return r
	})
}

func showRow(r tiller.Row) string {
	sequence, shared, token := int32(-1), "", "-"
	for i, id := range r.Sequences {
		switch i {
		case 0:
			sequence = id
		case 1:
			shared = ":" + show(id)
		default:
			shared += "," + show(id)
		}
	}
	if r.HasToken {
		token = show(r.Token)
	}
	return fmt.Sprintf("%d:%d:%d:%s%s", r.Position, sequence, r.Phase, token, shared)
}

func showReport(r tiller.Report) string {
	return show(r.Graphs, r.ForeignGraphs, r.RowsSeen, r.RowsEdited, r.RowsNotNeeded, r.RowsRefused, r.RowsRestored,
		r.RowsCaptured)
}

// showLedger writes the counts; "| rows unjudged code size" for each rule; "! STATUS count what" for each fault.
func showLedger(l tiller.Ledger) string {
	mean := func(x float64) any {
		if math.IsNaN(x) {
			return "-"
		}
		return x
	}
	out := showReport(l.Report)
	for _, r := range l.Rules {
		out += " | " + show(r.Rows, r.RowsUnjudged, mean(r.MeanCode), mean(r.RelativeSize))
	}
	for _, f := range l.Faults {
		out += " ! " + show(statusNames[f.Status], f.Count, f.Message)
	}
	return out
}

func codes(s string) []tiller.Code {
	return list(s, func(s string) tiller.Code {
		feature, activation, _ := strings.Cut(s, ":")
		return tiller.Code{Feature: uint32(number(feature)), Activation: float(activation)}
	})
}

// show writes values as the other runners do, parted by spaces.
func show(values ...any) string {
	var all []string
	for _, value := range values {
		switch v := value.(type) {
		case float32, float64:
			all = append(all, fmt.Sprintf("%.5g", v))
		case tiller.Row:
			all = append(all, showRow(v))
		case tiller.Code:
			all = append(all, fmt.Sprintf("%d:%.5g", v.Feature, v.Activation))
		default:
			if r := reflect.ValueOf(value); r.Kind() == reflect.Slice || r.Kind() == reflect.Array {
				for i := 0; i < r.Len(); i++ {
					all = append(all, show(r.Index(i).Interface()))
				}
			} else {
				all = append(all, fmt.Sprint(value))
			}
		}
	}
	return strings.Join(all, " ")
}

// shown is show of what a call gave, if it did not fail.
func shown(value any, err error) (string, error) { return show(value), err }

func sensible(m tiller.MPC) string {
	return show(m.MPC > 0 && m.MPC < 1.000001 && m.Raw >= m.ShuffledRaw && m.Shuffled >= 0)
}

// ---- The operations ----

type arguments []string

func dictionaryNew(a arguments) (string, error) {
	parts := tiller.Parts{
		Activation: uint32(number(a[1])), DModel: number(a[2]), NFeatures: number(a[3]), K: number(a[4]),
		Encoder: floats(a[5]), Decoder: floats(a[6]), Threshold: floats(a[7]), Layer: number(a[9]),
	}
	stats := floats(a[8])
	for i := 0; i+2 < len(stats); i += 3 {
		parts.Stats = append(parts.Stats, tiller.Stats{Density: stats[i], Max: stats[i+1], Mean: stats[i+2]})
	}
	if a[10] != "-" {
		parts.Name = a[10]
	}
	d, err := tiller.NewDictionary(parts)
	return kept(a[0], d, err)
}

// coderKept keeps a coder and shows its sizes.
func coderKept(name string) func(*tiller.Coder, error) (string, error) {
	return func(c *tiller.Coder, err error) (string, error) {
		if c, err = keep(name, c, err); err != nil {
			return "", err
		}
		return show(c.DModel(), c.NLatents()), nil
	}
}

// probeKept keeps a probe and shows the signs of its weights and bias.
func probeKept(name string) func(*tiller.Probe, error) (string, error) {
	return func(p *tiller.Probe, err error) (string, error) {
		if p, err = keep(name, p, err); err != nil {
			return "", err
		}
		sign := func(x float32) string {
			if x > 0 {
				return "+"
			} else if x < 0 {
				return "-"
			}
			return "0"
		}
		text := ""
		weights, err := p.Weights()
		for _, w := range weights {
			text += sign(w)
		}
		return text + " " + sign(p.Bias()), err
	}
}

// point reads "2", the residual stream after block 2, or "2/4", site 4 of it.
func point(s string) tiller.Point {
	layer, site, _ := strings.Cut(s, "/")
	p := tiller.Point{Layer: uint32(number(layer))}
	if site != "" {
		p.Site = tiller.Site(number(site))
	}
	return p
}

func keepMatches(name string, m *tiller.Matches, err error) (string, error) {
	if _, err = keep(name, m, err); err != nil {
		return "", err
	}
	var features []uint32
	for i := 0; i < m.Len(); i++ {
		found, err := m.At(i)
		if err != nil {
			return "", err
		}
		features = append(features, found.Feature)
	}
	return show(features), nil
}

func planRules(name string, made *tiller.Plan, err error) (string, error) {
	if _, err = keep(name, made, err); err != nil {
		return "", err
	}
	return show(made.NRules()), nil
}

func planOf(a arguments) *tiller.Compiled {
	if a[1] == "-" {
		return nil
	}
	return get[*tiller.Compiled](a[1])
}

type operation = func(a arguments) (string, error)

var operations = map[string]operation{
	"version": func(a arguments) (string, error) { return tiller.Version(), nil },
	"free": func(a arguments) (string, error) {
		get[interface{ Close() }](a[0]).Close()
		delete(handles, a[0])
		return "", nil
	},
	"dictionary_new": dictionaryNew,
	"dictionary_open": func(a arguments) (string, error) {
		d, err := tiller.OpenDictionary(a[1])
		return kept(a[0], d, err)
	},
	"dictionary_info": func(a arguments) (string, error) {
		i, err := get[*tiller.Dictionary](a[0]).Info()
		stats := 0
		if i.HasStats {
			stats = 1
		}
		return show(i.Activation, i.DModel, i.NFeatures, i.K, i.Layer, stats, i.Storage, i.Name), err
	},
	"dictionary_stats": func(a arguments) (string, error) {
		s, err := get[*tiller.Dictionary](a[0]).Stats(uint32(number(a[1])))
		return show(s.Density, s.Max, s.Mean), err
	},
	"dictionary_encode": func(a arguments) (string, error) {
		return shown(get[*tiller.Dictionary](a[0]).Encode(floats(a[1])))
	},
	"dictionary_encode_rows": func(a arguments) (string, error) {
		all, err := get[*tiller.Dictionary](a[0]).EncodeRows(floats(a[1]), number(a[2]))
		var text []string
		for _, row := range all {
			text = append(text, show(row))
		}
		return strings.Join(text, " | "), err
	},
	"dictionary_decode": func(a arguments) (string, error) {
		return shown(get[*tiller.Dictionary](a[0]).Decode(codes(a[1])))
	},
	"dictionary_encoder_row": func(a arguments) (string, error) {
		return shown(get[*tiller.Dictionary](a[0]).EncoderRow(uint32(number(a[1]))))
	},
	"dictionary_decoder_row": func(a arguments) (string, error) {
		return shown(get[*tiller.Dictionary](a[0]).DecoderRow(uint32(number(a[1]))))
	},
	"dictionary_save": func(a arguments) (string, error) {
		return "", get[*tiller.Dictionary](a[0]).Save(a[1], a[2])
	},
	"dictionary_open_as": func(a arguments) (string, error) {
		d, err := tiller.OpenDictionaryAs(a[1], a[2], "")
		return kept(a[0], d, err)
	},
	"dictionary_convert": func(a arguments) (string, error) {
		loss, err := get[*tiller.Dictionary](a[0]).Convert(a[1], a[2])
		return show(loss.EncoderMin, loss.EncoderMean, loss.DecoderMin, loss.DecoderMean), err
	},
	"dictionary_encode_file": func(a arguments) (string, error) {
		rows, active, err := get[*tiller.Dictionary](a[0]).EncodeFile(
			a[1], strings.Trim(a[2], "-"), a[3], number(a[4]), nil)
		return show(rows, active), err
	},
	"dictionary_decode_file": func(a arguments) (string, error) {
		return shown(get[*tiller.Dictionary](a[0]).DecodeFile(a[1], strings.Trim(a[2], "-"), a[3]))
	},
	"dictionary_diagnose": func(a arguments) (string, error) {
		points := []tiller.HookRows{{Hook: a[2], Data: floats(a[3])}}
		if a[4] != "-" {
			points = append(points, tiller.HookRows{Hook: a[4], Data: floats(a[5])})
		}
		d, err := get[*tiller.Dictionary](a[1]).Diagnose(points, 1, nil)
		return kept(a[0], d, err)
	},
	"diagnosis_get": func(a arguments) (string, error) {
		d, err := get[*tiller.Diagnosis](a[0]).Figures()
		return show(d.Fits, d.HasCause, d.L0, d.PromisedL0), err
	},
	"diagnosis_verdict": func(a arguments) (string, error) { return get[*tiller.Diagnosis](a[0]).Verdict() },
	"diagnosis_tried": func(a arguments) (string, error) {
		words, l0, fvu, err := get[*tiller.Diagnosis](a[0]).Tried(number(a[1]))
		return show(l0 >= 0 && fvu >= 0, words), err
	},
	"dictionary_save_saelens": func(a arguments) (string, error) {
		return "", get[*tiller.Dictionary](a[0]).SaveSaelens(a[1])
	},
	"dictionary_save_sparsify": func(a arguments) (string, error) {
		return "", get[*tiller.Dictionary](a[0]).SaveSparsify(a[1])
	},
	"dictionary_select": func(a arguments) (string, error) {
		d, err := get[*tiller.Dictionary](a[1]).Select(numbers(a[2]))
		if _, err = keep(a[0], d, err); err != nil {
			return "", err
		}
		return show(d.NFeatures()), nil
	},
	"slice_new": func(a arguments) (string, error) {
		s, err := get[*tiller.Dictionary](a[1]).Slice(numbers(a[2]))
		if _, err = keep(a[0], s, err); err != nil {
			return "", err
		}
		return show(s.Len(), s.IsExact()), nil
	},
	"slice_encode": func(a arguments) (string, error) { return shown(get[*tiller.Slice](a[0]).Encode(floats(a[1]))) },
	"slice_edit": func(a arguments) (string, error) {
		row := floats(a[2])
		err := get[*tiller.Slice](a[0]).Edit(floats(a[1]), row)
		return show(row), err
	},
	"gguf_open": func(a arguments) (string, error) {
		g, err := tiller.OpenGGUF(a[1])
		return kept(a[0], g, err)
	},
	"gguf_value": func(a arguments) (string, error) { return get[*tiller.GGUF](a[0]).Value(a[1]) },
	"gguf_has": func(a arguments) (string, error) {
		for _, key := range get[*tiller.GGUF](a[0]).Keys() {
			if key == a[1] {
				return "true", nil
			}
		}
		return "false", nil
	},
	"gguf_tensor": func(a arguments) (string, error) {
		g := get[*tiller.GGUF](a[0])
		for i := 0; i < g.NTensors(); i++ {
			t, err := g.Tensor(i)
			if err != nil || t.Name == a[1] {
				return show(t.Name, t.DType, t.Shape, len(t.Data)), err
			}
		}
		return "", nil
	},
	"model_open": func(a arguments) (string, error) {
		m, err := tiller.OpenModel(a[1])
		return kept(a[0], m, err)
	},
	"model_info": func(a arguments) (string, error) {
		i := get[*tiller.Model](a[0]).Info()
		return show(i.Architecture, i.Name, i.Quantization, i.NLayer, i.DModel, i.NVocab, i.ContextLength,
			i.TiedUnembedding, i.BOS, i.EOS, i.AddBOS), nil
	},
	"model_target": func(a arguments) (string, error) {
		t, err := get[*tiller.Model](a[0]).Target()
		return show(t.NLayer, t.DModel, t.Architecture), err
	},
	"model_fingerprint_length": func(a arguments) (string, error) {
		return show(len(get[*tiller.Model](a[0]).Info().Fingerprint)), nil
	},
	"model_token_text": func(a arguments) (string, error) {
		return get[*tiller.Model](a[0]).TokenText(int32(number(a[1])))
	},
	"model_token_bytes": func(a arguments) (string, error) {
		bytes, err := get[*tiller.Model](a[0]).TokenBytes(int32(number(a[1])))
		return string(bytes), err
	},
	"model_output_norm": func(a arguments) (string, error) {
		weight, epsilon, err := get[*tiller.Model](a[0]).OutputNorm()
		return show(weight, epsilon), err
	},
	"model_unembedding_row": func(a arguments) (string, error) {
		return shown(get[*tiller.Model](a[0]).UnembeddingRow(int32(number(a[1]))))
	},
	"model_check": func(a arguments) (string, error) {
		return get[*tiller.Model](a[0]).Check(get[*tiller.Dictionary](a[1]))
	},
	"vocabulary_new": func(a arguments) (string, error) {
		v, err := tiller.NewVocabulary(a[2:], number(a[1]))
		if _, err = keep(a[0], v, err); err != nil {
			return "", err
		}
		return show(v.Len()), nil
	},
	"vocabulary_open": func(a arguments) (string, error) {
		v, err := tiller.OpenVocabulary(a[1])
		if _, err = keep(a[0], v, err); err != nil {
			return "", err
		}
		return show(v.Len()), nil
	},
	"vocabulary_word": func(a arguments) (string, error) { return get[*tiller.Vocabulary](a[0]).Word(number(a[1])) },
	"vocabulary_save": func(a arguments) (string, error) { return "", get[*tiller.Vocabulary](a[0]).Save(a[1]) },
	"explanations_open": func(a arguments) (string, error) {
		x, err := tiller.OpenExplanations(a[1])
		if _, err = keep(a[0], x, err); err != nil {
			return "", err
		}
		return show(len(x.Features())), nil
	},
	"explanations_feature": func(a arguments) (string, error) {
		return show(get[*tiller.Explanations](a[0]).Features()[number(a[1])]), nil
	},
	"explanations_words": func(a arguments) (string, error) {
		return get[*tiller.Explanations](a[0]).Words(uint32(number(a[1])), number(a[2]))
	},
	"explanations_json": func(a arguments) (string, error) {
		return get[*tiller.Explanations](a[0]).JSON(uint32(number(a[1])))
	},
	"explanations_find": func(a arguments) (string, error) {
		m, err := get[*tiller.Explanations](a[1]).Find(a[3:], number(a[2]), tiller.FindOptions{})
		return keepMatches(a[0], m, err)
	},
	"explanations_find_label": func(a arguments) (string, error) {
		m, err := get[*tiller.Explanations](a[1]).FindLabel(a[3], number(a[2]))
		return keepMatches(a[0], m, err)
	},
	"match": func(a arguments) (string, error) {
		m, err := get[*tiller.Matches](a[0]).At(number(a[1]))
		return show(m.Feature, m.Weight, m.Words), err
	},
	"explanations_unknown": func(a arguments) (string, error) {
		return get[*tiller.Explanations](a[0]).UnknownWords(a[1:])
	},
	"explanations_label": func(a arguments) (string, error) {
		label := a[2]
		if label == "-" {
			label = ""
		}
		return "", get[*tiller.Explanations](a[0]).SetLabel(uint32(number(a[1])), label)
	},
	"explanations_save_labels": func(a arguments) (string, error) {
		return "", get[*tiller.Explanations](a[0]).SaveLabels(a[1])
	},
	"explanations_load_labels": func(a arguments) (string, error) {
		return shown(get[*tiller.Explanations](a[0]).LoadLabels(a[1]))
	},
	"explanations_save": func(a arguments) (string, error) { return "", get[*tiller.Explanations](a[0]).Save(a[1]) },
	"plan_parse": func(a arguments) (string, error) {
		p, err := tiller.ParsePlan(a[1])
		return planRules(a[0], p, err)
	},
	"plan_open": func(a arguments) (string, error) {
		p, err := tiller.OpenPlan(a[1])
		return planRules(a[0], p, err)
	},
	"plan_for": func(a arguments) (string, error) {
		m := get[*tiller.Matches](a[1])
		p, err := tiller.PlanFor(m, a[2], float(a[3]), tiller.Unit(number(a[4])), "")
		return planRules(a[0], p, err)
	},
	"plan_scaled": func(a arguments) (string, error) {
		p, err := get[*tiller.Plan](a[1]).Scaled(float(a[2]))
		return planRules(a[0], p, err)
	},
	"plan_json": func(a arguments) (string, error) { return get[*tiller.Plan](a[0]).JSON() },
	"plan_save": func(a arguments) (string, error) { return "", get[*tiller.Plan](a[0]).Save(a[1]) },
	"plan_compile": func(a arguments) (string, error) {
		named := []tiller.Named{{Name: "", Dictionary: get[*tiller.Dictionary](a[5])}}
		target := tiller.Target{NLayer: number(a[3]), DModel: number(a[4])}
		if len(a) > 6 {
			target.Architecture = a[6]
		}
		c, err := get[*tiller.Plan](a[1]).Compile(named, target, tiller.Route(number(a[2])))
		if _, err = keep(a[0], c, err); err != nil {
			return "", err
		}
		data, err := c.ControlVector()
		text := show(c.NeedsCallback(), len(data))
		if len(c.Fingerprint()) != 64 {
			text += " (wrong fingerprint)"
		}
		return text, err
	},
	"compiled_check": func(a arguments) (string, error) {
		return "", get[*tiller.Compiled](a[0]).Check(number(a[1]), number(a[2]))
	},
	"compiled_control_vector": func(a arguments) (string, error) {
		return shown(get[*tiller.Compiled](a[0]).ControlVector())
	},
	"compiled_apply": func(a arguments) (string, error) {
		data := floats(a[2])
		n, err := get[*tiller.Compiled](a[0]).Apply(point(a[1]), data, rows(a[3]))
		return show(data, n), err
	},
	"control_vector_new": func(a arguments) (string, error) {
		v, err := tiller.NewControlVector(number(a[1]))
		return kept(a[0], v, err)
	},
	"control_vector_open": func(a arguments) (string, error) {
		v, err := tiller.OpenControlVector(a[1])
		return kept(a[0], v, err)
	},
	"control_vector_add": func(a arguments) (string, error) {
		return "", get[*tiller.ControlVector](a[0]).Add(number(a[1]), floats(a[2]))
	},
	"control_vector_data": func(a arguments) (string, error) {
		return shown(get[*tiller.ControlVector](a[0]).Data(number(a[1])))
	},
	"control_vector_save": func(a arguments) (string, error) {
		return "", get[*tiller.ControlVector](a[0]).Save(a[1], a[2])
	},
	"coder_train": func(a arguments) (string, error) {
		options := tiller.CoderOptions{
			Objective: uint32(number(a[1])), Regularizer: uint32(number(a[2])), Groups: uint32(number(a[3])),
			Sparsity: uint32(number(a[4])), NLatents: number(a[5]), Steps: number(a[6]), Threads: 1,
		}
		return coderKept(a[0])(tiller.TrainCoderRows(floats(a[8]), number(a[7]), options, "", nil))
	},
	"coder_open": func(a arguments) (string, error) { return coderKept(a[0])(tiller.OpenCoder(a[1])) },
	"coder_save": func(a arguments) (string, error) { return "", get[*tiller.Coder](a[0]).Save(a[1]) },
	"coder_code": func(a arguments) (string, error) {
		c := get[*tiller.Coder](a[0])
		codes, err := c.Encode(floats(a[1]), 1)
		if err != nil {
			return "", err
		}
		if _, err := c.Decode(codes, 1); err != nil {
			return "", err
		}
		_, err = c.DecoderRow(number(a[2]))
		return show(len(codes), "codes"), err
	},
	"coder_dictionary": func(a arguments) (string, error) {
		d, err := get[*tiller.Coder](a[1]).Dictionary()
		return kept(a[0], d, err)
	},
	"concepts_new": func(a arguments) (string, error) {
		c, err := tiller.NewConcepts(number(a[1]))
		return kept(a[0], c, err)
	},
	"concepts_add": func(a arguments) (string, error) {
		var labels []bool
		for _, label := range numbers(a[3]) {
			labels = append(labels, label != 0)
		}
		all := get[*tiller.Concepts](a[0])
		err := all.Add(a[1], floats(a[2]), labels)
		return show(all.Len()), err
	},
	"dictionary_mpc": func(a arguments) (string, error) {
		m, err := get[*tiller.Dictionary](a[0]).MPC(get[*tiller.Concepts](a[1]), 1, nil)
		out := sensible(m)
		for _, match := range m.Matches {
			out += " " + show(match.Name, match.Feature)
		}
		return out, err
	},
	"coder_mpc": func(a arguments) (string, error) {
		m, err := get[*tiller.Coder](a[0]).MPC(get[*tiller.Concepts](a[1]), 1, nil)
		return "codes " + sensible(m), err
	},
	"direction": func(a arguments) (string, error) {
		d, err := tiller.FindDirection(
			floats(a[2]), floats(a[3]), number(a[1]), tiller.DirectionMethod(number(a[0])), 1)
		return show(d.Values, d.Agreement), err
	},
	"probe_fit": func(a arguments) (string, error) {
		options := tiller.ProbeOptions{L1: a[1] == "1", K: number(a[2]), C: 10, Threads: 1}
		labels := list(a[5], func(s string) uint8 { return uint8(number(s)) })
		return probeKept(a[0])(tiller.FitProbe(floats(a[4]), number(a[3]), labels, options, nil))
	},
	"probe_open": func(a arguments) (string, error) { return probeKept(a[0])(tiller.OpenProbe(a[1])) },
	"probe_save": func(a arguments) (string, error) { return "", get[*tiller.Probe](a[0]).Save(a[1]) },
	"temporal_open": func(a arguments) (string, error) {
		t, err := tiller.OpenTemporal(a[1])
		return kept(a[0], t, err)
	},
	"temporal_save": func(a arguments) (string, error) {
		return "", get[*tiller.Temporal](a[0]).Save(a[1])
	},
	"temporal_info": func(a arguments) (string, error) {
		t := get[*tiller.Temporal](a[0])
		features, err := t.Features()
		if err != nil {
			return "", err
		}
		order, err := t.Order()
		if err != nil {
			return "", err
		}
		deviation, err := t.Deviation()
		return show(t.NLatents(), t.Lags(), t.DModel(), features, order, deviation), err
	},
	"temporal_weights": func(a arguments) (string, error) {
		return shown(get[*tiller.Temporal](a[0]).Weights(number(a[1])))
	},
	"temporal_response": func(a arguments) (string, error) {
		return shown(get[*tiller.Temporal](a[0]).Response(number(a[1]), number(a[2])))
	},
	"temporal_direction": func(a arguments) (string, error) {
		return shown(get[*tiller.Temporal](a[0]).Direction(number(a[1]), number(a[2]) != 0))
	},
	"hook_new": func(a arguments) (string, error) {
		k, err := newHook()
		return kept(a[0], k, err)
	},
	"ggml_probe": func(a arguments) (string, error) { return "", probeGgml(a[0]) },
	"hook_graph": func(a arguments) (string, error) {
		data := floats(a[3])
		var positions []int32
		for _, p := range numbers(a[5]) {
			positions = append(positions, int32(p))
		}
		answer := graph(get[*tiller.Hook](a[0]), a[1][0], a[2], data, number(a[4]), positions, a[6] == "device")
		return show(answer, data), nil
	},
	"hook_set_plan": func(a arguments) (string, error) { return "", get[*tiller.Hook](a[0]).SetPlan(planOf(a)) },
	"hook_vector": func(a arguments) (string, error) {
		k := get[*tiller.Hook](a[0])
		err := k.SetPlan(planOf(a))
		return show(k.HasControlVector()), err
	},
	"hook_announce": func(a arguments) (string, error) { return "", get[*tiller.Hook](a[0]).Announce(rows(a[1])) },
	"hook_capture": func(a arguments) (string, error) {
		if a[1] == "-" {
			return "", get[*tiller.Hook](a[0]).Capture(nil)
		}
		return "", get[*tiller.Hook](a[0]).Capture([]tiller.Point{point(a[1])})
	},
	"hook_architecture": func(a arguments) (string, error) {
		return "", get[*tiller.Hook](a[0]).SetArchitecture(a[1])
	},
	"hook_patch": func(a arguments) (string, error) {
		return "", patch(get[*tiller.Hook](a[0]), point(a[1]), number(a[2]) != 0)
	},
	"hook_captured": func(a arguments) (string, error) {
		c, err := get[*tiller.Hook](a[0]).Captured(point(a[1]))
		if len(c.Tokens) == 0 {
			return "", err
		}
		return show(c.Data, c.Tokens), err
	},
	"hook_stop_after": func(a arguments) (string, error) {
		return "", get[*tiller.Hook](a[0]).StopAfter(number(a[1]))
	},
	"hook_finish": func(a arguments) (string, error) {
		r, err := get[*tiller.Hook](a[0]).Finish()
		if err != nil && r.NFaults == 0 {
			return "the report is not filled", nil
		}
		return showReport(r), err
	},
	"hook_ledger": func(a arguments) (string, error) {
		l, err := get[*tiller.Hook](a[0]).Ledger()
		return showLedger(l), err
	},
	"hook_check_plan": func(a arguments) (string, error) { return "", get[*tiller.Hook](a[0]).CheckPlan(planOf(a)) },
	"hook_sequences": func(a arguments) (string, error) {
		return "", get[*tiller.Hook](a[0]).SetSequences(number(a[1]))
	},
	"hook_rebind": func(a arguments) (string, error) { return "", get[*tiller.Hook](a[0]).Rebind() },
	"hook_forget": func(a arguments) (string, error) {
		return "", get[*tiller.Hook](a[0]).ForgetSequence(int32(number(a[1])))
	},
	"hook_set_plan_apart": func(a arguments) (string, error) {
		// While this goroutine holds its thread, the other one runs on another.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		done := make(chan error)
		go func() { done <- get[*tiller.Hook](a[0]).SetPlan(planOf(a)) }()
		return "", <-done
	},
	"hook_intrusion": func(a arguments) (string, error) {
		answer, data, announced, planned := intrusion(get[*tiller.Hook](a[0]), point(a[1]))
		return show(answer, data, announced, planned), nil
	},
}

var statusNames = map[tiller.Status]string{
	tiller.EArgument: "ARGUMENT", tiller.EIO: "IO", tiller.EFormat: "FORMAT", tiller.EUnsupported: "UNSUPPORTED",
	tiller.EMismatch: "MISMATCH", tiller.ENumeric: "NUMERIC", tiller.ECancelled: "CANCELLED", tiller.EPanic: "PANIC",
}

// run runs one case: its status and what came out.
func run(fields []string) (status, result string) {
	run, ok := operations[fields[0]]
	if !ok {
		return "no such operation", ""
	}
	result, err := run(fields[1:])
	var e *tiller.Error
	if errors.As(err, &e) {
		return statusNames[e.Status], e.Message
	}
	return "OK", result
}

func asExpected(status, expected, gotStatus, got string) bool {
	if status != gotStatus {
		return false
	}
	if part := strings.TrimPrefix(expected, "~"); part != expected || status != "OK" {
		return strings.Contains(got, part)
	}
	return got == expected
}

func main() {
	cases, failures := 0, 0
	for _, path := range os.Args[1:] {
		file, err := os.Open(path)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		scanner := bufio.NewScanner(file)
		for number := 1; scanner.Scan(); number++ {
			line := scanner.Text()
			if line == "" || line[0] == '#' {
				continue
			}
			cases++
			fields := strings.Split(line, "\t")
			status, result := run(fields[2:])
			if !asExpected(fields[0], fields[1], status, result) {
				failures++
				fmt.Fprintf(os.Stderr, "%s:%d: %s\n  expected %s %s\n  found    %s %s\n",
					path, number, fields[2], fields[0], fields[1], status, result)
			}
		}
	}
	fmt.Printf("%d cases, %d failures\n", cases, failures)
	if cases == 0 || failures > 0 {
		os.Exit(1)
	}
}
