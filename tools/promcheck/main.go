// Command promcheck checks Prometheus alert rules and the queries of a Grafana dashboard with Prometheus' own parser, and
// that what they ask for is served: promcheck METRICS RULES… DASHBOARD…, where METRICS is an answer of /metrics. It is a
// module of its own, so that nobody who imports the project inherits Prometheus.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

func main() {
	if err := check(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func check(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: promcheck METRICS FILE…")
	}
	served, err := readMetrics(args[0])
	if err != nil {
		return err
	}
	var bad []error
	queries := 0
	for _, file := range args[1:] {
		exprs, err := expressions(file)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		for where, expr := range exprs {
			queries++
			if err := served.check(expr); err != nil {
				bad = append(bad, fmt.Errorf("%s: %s: %w", file, where, err))
			}
		}
	}
	fmt.Printf("%d queries, %d metrics served\n", queries, len(served))
	return errors.Join(bad...)
}

// metrics are the label names of each served metric.
type metrics map[string]map[string]bool

func readMetrics(file string) (metrics, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p := expfmt.NewTextParser(model.UTF8Validation)
	families, err := p.TextToMetricFamilies(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	out := metrics{}
	for name, family := range families {
		names := []string{name}
		if h := family.GetMetric()[0].GetHistogram(); h != nil {
			names = []string{name + "_bucket", name + "_sum", name + "_count"}
		}
		for _, n := range names {
			out[n] = map[string]bool{"job": true, "instance": true, "__name__": true, "le": strings.HasSuffix(n, "_bucket")}
			for _, m := range family.GetMetric() {
				for _, l := range m.GetLabel() {
					out[n][l.GetName()] = true
				}
			}
		}
	}
	return out, nil
}

// check parses a query and looks for what it selects, and by which labels.
func (m metrics) check(expr string) error {
	e, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		return fmt.Errorf("%s: %w", expr, err)
	}
	var bad []error
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			known, ok := m[n.Name]
			if !ok && n.Name != "up" {
				bad = append(bad, fmt.Errorf("%s is not served", n.Name))
			}
			for _, l := range n.LabelMatchers {
				if ok && !known[l.Name] {
					bad = append(bad, fmt.Errorf("%s has no label %s", n.Name, l.Name))
				}
			}
		case *parser.AggregateExpr:
			for _, g := range n.Grouping {
				parser.Inspect(n.Expr, func(s parser.Node, _ []parser.Node) error {
					if v, ok := s.(*parser.VectorSelector); ok && !n.Without && m[v.Name] != nil && !m[v.Name][g] {
						bad = append(bad, fmt.Errorf("%s has no label %s", v.Name, g))
					}
					return nil
				})
			}
		}
		return nil
	})
	return errors.Join(bad...)
}

// expressions reads the queries of a file of rules (YAML) or of a dashboard (JSON), by where they stand.
func expressions(file string) (map[string]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	if strings.HasSuffix(file, ".json") {
		var d struct {
			Panels []struct {
				Title   string
				Targets []struct{ Expr, RefID string }
			}
			Templating struct{ List []struct{ Name string } }
		}
		if err := json.Unmarshal(text, &d); err != nil {
			return nil, err
		}
		variables := []string{"$__rate_interval", "5m", "$__range", "1h"}
		for _, v := range d.Templating.List {
			variables = append(variables, "$"+v.Name, ".*")
		}
		plain := strings.NewReplacer(variables...)
		for _, p := range d.Panels {
			for _, t := range p.Targets {
				out[fmt.Sprintf("panel %q, query %s", p.Title, t.RefID)] = plain.Replace(t.Expr)
			}
		}
		return out, nil
	}
	groups, errs := rulefmt.Parse(text, false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			if r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["runbook"] == "" {
				return nil, fmt.Errorf("rule %s: severity, summary and runbook must be given", r.Alert)
			}
			out[r.Alert] = r.Expr
		}
	}
	return out, nil
}
