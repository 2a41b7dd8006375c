package api

import (
	"embed"
	"fmt"
	"sort"
	"strings"
	"sync"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
)

//go:embed schemas/*.json
var schemaFiles embed.FS

// schemas compiles schema files when they are first needed: a start does not wait for all of them.
type schemas struct {
	mu   sync.Mutex
	done map[string]*lazySchema
}

func newSchemas() *schemas { return &schemas{done: map[string]*lazySchema{}} }

// lazySchema is one file; it implements httpapi.Schema and httpapi.Pruner.
type lazySchema struct {
	name string
	once sync.Once
	s    httpapi.Schema
	err  error
}

func (l *lazySchema) load() (httpapi.Schema, error) {
	l.once.Do(func() {
		b, err := schemaFiles.ReadFile("schemas/" + l.name)
		if err != nil {
			l.err = err
			return
		}
		l.s, l.err = httpapi.CompileSchema(l.name, b)
	})
	return l.s, l.err
}

// Validate implements httpapi.Schema.
func (l *lazySchema) Validate(doc any) error {
	s, err := l.load()
	if err != nil {
		return fmt.Errorf("load schema %s: %w", l.name, err)
	}
	return s.Validate(doc)
}

// Prune implements httpapi.Pruner. Below the legacy root blanks around names do not count either, and user data may be null.
func (l *lazySchema) Prune(doc any) {
	trimNames(doc)
	if s, err := l.load(); err == nil { // Validate, which follows, tells the error
		if p, ok := s.(httpapi.Pruner); ok {
			p.Prune(doc)
		}
	}
}

// named are the members of a body whose names the legacy root takes with blanks around them.
var named = []string{"server", "rebuild", "createImage", "createBackup", "keypair", "aggregate", "flavor"}

// trimNames removes what only the legacy root takes from a body, in place.
func trimNames(doc any) {
	body, _ := doc.(map[string]any)
	for _, key := range named {
		m, _ := body[key].(map[string]any)
		trim(m, "name", "availability_zone", "key_name")
		groups, _ := m["security_groups"].([]any)
		for _, g := range groups {
			group, _ := g.(map[string]any)
			trim(group, "name")
		}
		if data, given := m["user_data"]; given && data == nil {
			delete(m, "user_data")
		}
	}
}

// trim removes the blanks around texts of an object.
func trim(m map[string]any, names ...string) {
	for _, name := range names {
		if text, ok := m[name].(string); ok {
			m[name] = strings.TrimSpace(text)
		}
	}
}

// get gives the one lazySchema of a file.
func (s *schemas) get(name string) *lazySchema {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.done[name]
	if l == nil {
		l = &lazySchema{name: name}
		s.done[name] = l
	}
	return l
}

// choose gives the function that finds an entry's schema by version; nil when nothing is validated.
func (s *schemas) choose(e entry, kind string, starts []int) func(httpapi.Version) httpapi.Schema {
	if len(starts) == 0 {
		return nil
	}
	list := make([]*lazySchema, len(starts))
	for i, minor := range starts {
		list[i] = s.get(schemaName(e, kind, minor))
	}
	return func(v httpapi.Version) httpapi.Schema {
		i := sort.SearchInts(starts, v.Minor+1) - 1
		if i < 0 {
			return refuseAll{}
		}
		return list[i]
	}
}

// refuseAll stands for versions that a route does not have; routing refuses them before.
type refuseAll struct{}

func (refuseAll) Validate(any) error {
	return fault.New(fault.NotFound, "The resource could not be found.")
}

// schemaName is the file of a schema, as gen names it.
func schemaName(e entry, kind string, minor int) string {
	s := strings.NewReplacer("/", "-", "{", "", "}", "").Replace(e.Path)
	s = strings.ToLower(e.Method) + s
	if e.Action != "" {
		s += "-" + e.Action
	}
	return fmt.Sprintf("%s.%s.2.%d.json", s, kind, minor)
}
