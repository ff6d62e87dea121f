package pipeline

import (
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// schedule reads what runs by itself, and when.
func (b *builder) schedule(v *value, duration func(*value, string) time.Duration, size func(*value, string) int64) {
	s := &b.lake.Schedule
	s.Timezone = b.timezone(v.get("timezone"), "schedule.timezone")
	places := map[string]*value{}
	task := func(name, path string, x *value) {
		t := &Task{
			Name: name, Run: x.get("run").str(name), Cron: x.get("cron").str(""), Timezone: s.Timezone, After: x.get("after").strs(),
			Sources: x.get("sources").strs(), Tables: x.get("tables").strs(),
			Retries: int(size(x.get("retries"), "schedule.batch.retries")), Backoff: duration(x.get("backoff"), "schedule.batch.backoff"),
			Timeout: duration(x.get("timeout"), "schedule.batch.timeout"), CatchUp: x.get("catch_up").str(CatchUpOnce),
		}
		if x.get("catch_up") == nil && path == "schedule.maintenance" {
			t.CatchUp = CatchUpNone
		}
		if z := x.get("timezone"); z != nil {
			t.Timezone = b.timezone(z, path+".timezone")
		}
		switch c := x.get("cron"); {
		case c == nil && len(t.After) == 0:
			b.r.errorf(x.place(), `give it cron: "0 1 * * *" or after: [batch]`, "%s has neither cron nor after: it would never run", path)
		case c != nil && len(t.After) > 0:
			b.r.errorf(c.at, "remove one of them", "%s has both cron and after", path)
		case c != nil:
			if err := parseCron(c.text); err != nil {
				b.r.errorf(c.at, `five fields: minute, hour, day of month, month, day of week, such as "0 1 * * *"`, "%s.cron: %s: %s", path, strconv.Quote(clip(c.shown)), c.why(err))
			}
		}
		places[name] = x
		s.Tasks = append(s.Tasks, t)
	}
	for _, name := range []string{RunBatch, RunMaintenance} {
		if x := v.get(name); x != nil {
			task(name, "schedule."+name, x)
		}
	}
	for _, e := range v.get("tasks").entries() {
		b.name(e, "task")
		if e.name == RunBatch || e.name == RunMaintenance {
			b.r.errorf(e.at, "give it another name, or write it as schedule."+e.name, "schedule.tasks.%s: schedule.%s has this name", e.name, e.name)
			continue
		}
		task(e.name, "schedule.tasks."+e.name, e.v)
	}
	for _, t := range s.Tasks {
		b.checkTask(t, places[t.Name])
	}
	b.orderTasks(places)
	if x := v.get("alerts").get("url"); x != nil {
		if u, err := url.Parse(x.text); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			b.r.errorf(x.at, "write it like https://hooks.example.org/lake", "schedule.alerts.url: %s is no address of a webhook", strconv.Quote(clip(x.shown)))
		}
		s.AlertURL = x.text
	}
}

// checkTask looks at what a task refers to.
func (b *builder) checkTask(t *Task, x *value) {
	if t.Run != RunBatch && len(t.Sources) > 0 {
		b.r.errorf(x.get("sources").place(), "remove it, or write tables", "task %s is maintenance, and has sources: these are for batches", t.Name)
	}
	if t.Run != RunMaintenance && len(t.Tables) > 0 {
		b.r.errorf(x.get("tables").place(), "remove it, or write sources", "task %s is a batch, and has tables: these are for maintenance", t.Name)
	}
	var files []string
	for _, s := range b.lake.Sources {
		if !s.Streaming() {
			files = append(files, s.Name)
		}
	}
	for _, name := range t.Sources {
		if !slices.Contains(files, name) {
			b.r.errorf(x.get("sources").place(), suggest(name, files), "task %s: there is no source of files %s", t.Name, strconv.Quote(clip(name)))
		}
	}
	for _, name := range t.Tables {
		if b.lake.Table(name) == nil {
			b.r.errorf(x.get("tables").place(), suggest(name, b.tableNames()), "task %s: there is no table %s", t.Name, strconv.Quote(clip(name)))
		}
	}
	var names []string
	for _, o := range b.lake.Schedule.Tasks {
		names = append(names, o.Name)
	}
	for _, name := range t.After {
		if !slices.Contains(names, name) {
			b.r.errorf(x.get("after").place(), suggest(name, names), "task %s runs after %s, and there is no such task", t.Name, strconv.Quote(clip(name)))
		}
	}
}

// orderTasks puts each task behind those that it runs after.
func (b *builder) orderTasks(places map[string]*value) {
	s := &b.lake.Schedule
	var out []*Task
	placed := map[string]bool{}
	for left := s.Tasks; len(left) > 0; {
		var wait []*Task
		for _, t := range left {
			if slices.ContainsFunc(t.After, func(n string) bool { return !placed[n] && s.Task(n) != nil }) {
				wait = append(wait, t)
				continue
			}
			placed[t.Name] = true
			out = append(out, t)
		}
		if len(wait) == len(left) {
			var names []string
			for _, t := range wait {
				names = append(names, t.Name)
			}
			b.r.errorf(places[names[0]].place(), "give one of them a time (cron)", "tasks wait for each other: %s", strings.Join(names, ", "))
			return
		}
		left = wait
	}
	s.Tasks = out
}

// parseCron accepts five fields, as cron does, and the shorthands @hourly, @daily and so on.
func parseCron(s string) error {
	if strings.Contains(s, "TZ=") {
		return errors.New("the time zone stands in schedule.timezone")
	}
	c, err := cron.ParseStandard(s)
	if err == nil && c.Next(time.Unix(0, 0).UTC()).IsZero() {
		return errors.New("it is never due")
	}
	return err
}
