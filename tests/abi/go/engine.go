//go:build !tiller_guest

package main

import (
	"reflect"
	"strings"
	"tiller"
)

func explained(name string, e *tiller.Explanations, err error) (string, error) {
	if _, err = keep(name, e, err); err != nil {
		return "", err
	}
	return show(len(e.Features())), nil
}

func init() {
	for name, run := range map[string]operation{
		"engine_open": func(a arguments) (string, error) {
			n, err := tiller.OpenEngine(a[1], tiller.EngineOptions{Threads: number(a[2]), Context: number(a[3])})
			return kept(a[0], n, err)
		},
		"engine_sizes": func(a arguments) (string, error) {
			n := get[*tiller.Engine](a[0])
			return show(n.NLayer(), n.DModel(), n.NVocab()), nil
		},
		"engine_target": func(a arguments) (string, error) {
			t, err := get[*tiller.Engine](a[0]).Target()
			return show(t.NLayer, t.DModel, t.Architecture), err
		},
		"engine_tokenize": func(a arguments) (string, error) {
			return shown(get[*tiller.Engine](a[0]).Tokenize(a[1], true))
		},
		"engine_detokenize": func(a arguments) (string, error) {
			return get[*tiller.Engine](a[0]).Detokenize(list(a[1], func(s string) int32 { return int32(number(s)) }))
		},
		"engine_chat": func(a arguments) (string, error) {
			return get[*tiller.Engine](a[0]).Chat([]tiller.Message{{Role: a[1], Content: a[2]}}, true)
		},
		"engine_answer": func(a arguments) (string, error) {
			turns := []tiller.Message{{Role: "user", Content: a[1]}}
			g, err := get[*tiller.Engine](a[0]).Answer(turns, tiller.GenerateOptions{MaxTokens: number(a[2])}, nil)
			if err != nil {
				return "", err
			}
			return show(g.NPrompt()), nil
		},
		"engine_generate": func(a arguments) (string, error) {
			left := number(a[3])
			var stream func(string) bool
			if left > 0 {
				stream = func(piece string) bool {
					if piece != "" {
						left--
					}
					return left > 0
				}
			}
			g, err := get[*tiller.Engine](a[0]).Generate(a[1], tiller.GenerateOptions{MaxTokens: number(a[2])}, stream)
			if err != nil {
				return "", err
			}
			return show(len(g.Tokens()), g.Stop()) + g.Text(), nil
		},
		"engine_begin": func(a arguments) (string, error) {
			g, err := get[*tiller.Engine](a[1]).Begin(a[2], tiller.GenerateOptions{MaxTokens: number(a[3])})
			if _, err = keep(a[0], g, err); err != nil {
				return "", err
			}
			return show(g.NPrompt()), nil
		},
		"engine_step": func(a arguments) (string, error) {
			g := get[*tiller.Generation](a[1])
			more, err := get[*tiller.Engine](a[0]).Step(g)
			return show(more, len(g.Tokens())), err
		},
		"engine_set_plan": func(a arguments) (string, error) {
			return "", get[*tiller.Engine](a[0]).SetPlan(planOf(a))
		},
		"engine_finish": func(a arguments) (string, error) {
			r, err := get[*tiller.Engine](a[0]).Finish()
			return show(r.RowsEdited > 0), err
		},
		"engine_ledger": func(a arguments) (string, error) {
			l, err := get[*tiller.Engine](a[0]).Ledger()
			return show(l.RowsEdited > 0, len(l.Rules), len(l.Faults)), err
		},
		"engine_rest": func(a arguments) (string, error) {
			return "", get[*tiller.Engine](a[0]).Rest()
		},
		"engine_perplexity": func(a arguments) (string, error) {
			s, err := get[*tiller.Engine](a[0]).Perplexity(a[1], 0)
			return show(s.NTokens, s.Perplexity > 1), err
		},
		"engine_score": func(a arguments) (string, error) {
			tokens := list(a[1], func(s string) int32 { return int32(number(s)) })
			s, err := get[*tiller.Engine](a[0]).Score(tokens, number(a[2]))
			return show(s.NTokens, s.NLL > 0), err
		},
		"engine_generate_many": func(a arguments) (string, error) {
			made, err := get[*tiller.Engine](a[0]).GenerateMany(
				[]string{a[2], a[3]}, tiller.GenerateOptions{MaxTokens: number(a[1])})
			var lengths []int
			for _, g := range made {
				lengths = append(lengths, len(g.Tokens()))
			}
			return show(lengths), err
		},
		"engine_find_strength": func(a arguments) (string, error) {
			left := number(a[5])
			var named []tiller.Named
			if a[2] != "-" {
				named = append(named, tiller.Named{Dictionary: get[*tiller.Dictionary](a[2])})
			}
			var words []string
			if a[3] != "-" {
				words = append(words, a[3])
			}
			f, err := get[*tiller.Engine](a[0]).FindStrength(get[*tiller.Plan](a[1]), named, words, nil,
				tiller.SearchOptions{MaxPerplexity: float64(float(a[4]))},
				func(done, total uint64, note string) bool { left--; return left != -1 })
			return show(f.Factor, f.Trials, f.Gain), err
		},
		"engine_rank": func(a arguments) (string, error) {
			left := number(a[6])
			var words []string
			if a[5] != "-" {
				words = append(words, a[5])
			}
			m, err := get[*tiller.Engine](a[1]).Rank(
				get[*tiller.Dictionary](a[2]), get[*tiller.Matches](a[3]), words, number(a[4]), tiller.OutputOptions{},
				func(done, total uint64, note string) bool { left--; return left != -1 })
			shown, err := keepMatches(a[0], m, err)
			if err == nil && m.Len() > 0 {
				first, _ := m.At(0)
				shown += " " + show(first.Lift > 0)
			}
			return shown, err
		},
		"engine_diagnose": func(a arguments) (string, error) {
			d, err := get[*tiller.Engine](a[1]).Diagnose(
				get[*tiller.Dictionary](a[2]), []string{a[3]}, tiller.SelfTestOptions{MaxTokens: 200}, nil)
			return kept(a[0], d, err)
		},
		"dictionary_drift": func(a arguments) (string, error) {
			found, err := get[*tiller.Dictionary](a[0]).Drift(words(a[1]), []string{a[2]},
				tiller.EngineOptions{Threads: 1, Context: 256},
				tiller.SelfTestOptions{MaxTokens: 100, ScoreTokens: 60, Window: 64}, nil)
			var all []any
			for _, f := range found {
				all = append(all, f.FVU > 0 && f.L0 > 0 && f.Clean > 0, f.Changed < 0.25)
			}
			return show(all...), err
		},
		"adopt": func(a arguments) (string, error) {
			left := number(a[4])
			made, err := tiller.Adopt(a[0], a[1],
				tiller.AdoptOptions{Minutes: float64(float(a[3])), Files: []string{a[2]}, Threads: 1},
				func(done, total uint64, note string) bool { left--; return left != -1 })
			return show(made.Layer), err
		},
		"engine_harvest": func(a arguments) (string, error) {
			left := number(a[4])
			return shown(get[*tiller.Engine](a[0]).Harvest([]string{a[1]}, a[2],
				tiller.HarvestOptions{Layers: numbers(a[3])},
				func(done, total uint64, note string) bool { left--; return left != -1 }))
		},
		"activations_open": func(a arguments) (string, error) {
			acts, err := tiller.OpenActivations(a[1])
			if _, err = keep(a[0], acts, err); err != nil {
				return "", err
			}
			i := acts.Info()
			text := show(i.NRows, i.DModel, i.Layer, i.Complete)
			if i.Model == "" || len(i.Fingerprint) != 64 {
				text += " (of no model)"
			}
			return text, nil
		},
		"activations_row": func(a arguments) (string, error) {
			row, token, position, err := get[*tiller.Activations](a[0]).Row(number(a[1]))
			square := float32(0)
			for _, x := range row {
				square += x * x
			}
			return show(token, position, square > 0), err
		},
		"train": func(a arguments) (string, error) {
			left := number(a[5])
			d, err := tiller.Train([]*tiller.Activations{get[*tiller.Activations](a[1])},
				tiller.TrainOptions{NFeatures: number(a[2]), K: number(a[3]), Batch: number(a[4])}, "",
				func(done, total uint64, note string) bool { left--; return left != -1 })
			if _, err = keep(a[0], d, err); err != nil {
				return "", err
			}
			return show(d.NFeatures(), d.DModel()), nil
		},
		"train_recipe": func(a arguments) (string, error) {
			left := number(a[4])
			d, err := tiller.TrainRecipe([]*tiller.Activations{get[*tiller.Activations](a[1])}, a[2], 1, "", a[3],
				func(done, total uint64, note string) bool { left--; return left != -1 })
			if _, err = keep(a[0], d, err); err != nil {
				return "", err
			}
			return show(d.NFeatures(), d.DModel()), nil
		},
		"engine_train": func(a arguments) (string, error) {
			left := number(a[5])
			d, err := get[*tiller.Engine](a[1]).Train([]string{a[2]}, tiller.StreamedOptions{Layer: uint32(number(a[3]))},
				a[4], 1, "", "", func(done, total uint64, note string) bool { left--; return left != -1 })
			if _, err = keep(a[0], d, err); err != nil {
				return "", err
			}
			return show(d.NFeatures(), d.DModel()), nil
		},
		"engine_learn": func(a arguments) (string, error) {
			left := number(a[3])
			d, report, err := get[*tiller.Engine](a[1]).Learn(a[2],
				func(done, total uint64, note string) bool { left--; return left != -1 })
			if _, err = keep(a[0], d, err); err != nil {
				return "", err
			}
			return show(d.NFeatures() > 0, d.FeatureLayer(0) > 0, strings.Contains(report, "\"plan\":")), nil
		},
		"engine_evaluate": func(a arguments) (string, error) {
			left := number(a[2])
			report, err := get[*tiller.Engine](a[0]).Evaluate(a[1],
				func(done, total uint64, note string) bool { left--; return left != -1 })
			if err != nil {
				return "", err
			}
			return show(strings.Contains(report, "\"mcc\":"), strings.Contains(report, "\"selectivity\":")), nil
		},
		"train_many": func(a arguments) (string, error) {
			left := number(a[4])
			made, err := tiller.TrainMany(
				[]*tiller.Activations{get[*tiller.Activations](a[1])}, []string{a[2], a[3]}, 1, nil,
				func(done, total uint64, note string) bool { left--; return left != -1 })
			if err != nil {
				return "", err
			}
			keep(a[0], made[0], nil)
			return show(made[0].NFeatures(), made[1].NFeatures()), nil
		},
		"engine_last_rows": func(a arguments) (string, error) {
			model := get[*tiller.Engine](a[0])
			rows, err := model.LastRows(words(a[2]), a[1], nil)
			if err != nil {
				return "", err
			}
			d := model.DModel()
			return show(len(rows), !reflect.DeepEqual(rows[:d], rows[len(rows)-d:])), nil
		},
		"engine_concepts": func(a arguments) (string, error) {
			file := a[2]
			if file == "-" {
				file = ""
			}
			c, err := get[*tiller.Engine](a[1]).Concepts(file, a[3], nil)
			if _, err = keep(a[0], c, err); err != nil {
				return "", err
			}
			return show(c.Len()), nil
		},
		"dictionary_measure": func(a arguments) (string, error) {
			q, err := get[*tiller.Dictionary](a[0]).Measure(get[*tiller.Activations](a[1]), tiller.MeasureOptions{}, nil)
			return show(q.NRows, q.NSinks, q.L0 > 0 && q.MeanNorm > 0, q.FVU > 0 && q.FVU < 1), err
		},
		"vocabulary_harvested": func(a arguments) (string, error) {
			v, err := tiller.HarvestedVocabulary([]*tiller.Activations{get[*tiller.Activations](a[1])},
				get[*tiller.Model](a[2]), number(a[3]))
			if _, err = keep(a[0], v, err); err != nil {
				return "", err
			}
			return show(v.Len()), nil
		},
		"explain_data": func(a arguments) (string, error) {
			e, err := tiller.Explain([]*tiller.Activations{get[*tiller.Activations](a[1])}, get[*tiller.Model](a[2]),
				get[*tiller.Dictionary](a[3]), get[*tiller.Vocabulary](a[4]), tiller.ExplainOptions{}, nil)
			return explained(a[0], e, err)
		},
		"explain_spans": func(a arguments) (string, error) {
			e, spans, err := tiller.ExplainSpans([]*tiller.Activations{get[*tiller.Activations](a[1])},
				get[*tiller.Model](a[2]), get[*tiller.Dictionary](a[3]), get[*tiller.Vocabulary](a[4]), number(a[5]), 1, nil)
			text, err := explained(a[0], e, err)
			return text + " " + show(strings.HasPrefix(spans, `{"activation":`)), err
		},
		"engine_explain": func(a arguments) (string, error) {
			e, err := get[*tiller.Engine](a[1]).Explain(get[*tiller.Model](a[2]), get[*tiller.Dictionary](a[3]),
				get[*tiller.Vocabulary](a[4]), nil, nil, tiller.LensOptions{}, nil)
			return explained(a[0], e, err)
		},
		"engine_self_test": func(a arguments) (string, error) {
			t, err := get[*tiller.Engine](a[0]).SelfTest(
				get[*tiller.Dictionary](a[1]), []string{a[2]}, tiller.SelfTestOptions{}, nil)
			return show(t.NRows, t.NWarnings, t.FVU > 0 && t.L0 > 0,
				t.Clean < t.Reconstructed && t.Reconstructed < t.Zero), err
		},
		"requantize": func(a arguments) (string, error) { return "", tiller.Requantize(a[0], a[1], a[2], 2) },
	} {
		operations[name] = run
	}
}
