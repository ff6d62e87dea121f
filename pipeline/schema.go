package pipeline

import (
	"bytes"
	_ "embed" // for Schema
	"encoding/json"
	"strconv"
	"strings"
)

//go:embed lake.schema.json
var schemaJSON []byte

// Schema is the JSON Schema (draft 2020-12) of lake files, for editors.
func Schema() []byte { return bytes.Clone(schemaJSON) }

// schemaNode is a JSON object whose keys keep their order.
type schemaNode []schemaPair

type schemaPair struct {
	key   string
	value any
}

// MarshalJSON writes the pairs in their order.
func (n schemaNode) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, p := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		k, err := json.Marshal(p.key)
		if err != nil {
			return nil, err
		}
		var v bytes.Buffer
		e := json.NewEncoder(&v)
		e.SetEscapeHTML(false)
		if err := e.Encode(p.value); err != nil {
			return nil, err
		}
		b.Write(k)
		b.WriteByte(':')
		b.Write(bytes.TrimSpace(v.Bytes()))
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// GenerateSchema makes the JSON Schema from the shape that Load checks; lake.schema.json is its result.
func GenerateSchema() ([]byte, error) {
	root := schemaNode{
		{"$schema", "https://json-schema.org/draft/2020-12/schema"},
		{"title", "Cauce lake file"},
	}
	body := lakeShape.schema()
	body = append(body, schemaPair{"patternProperties", schemaNode{{"^x-", schemaNode{{"description", "Ignored: a place for YAML anchors."}}}}})
	text, err := append(root, body...).MarshalJSON()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, text, "", "  "); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// reference is what may stand instead of any value that is not a text.
var reference = schemaNode{{"type", "string"}, {"pattern", `\$\{(env|file):`}}

func (s *shape) schema() schemaNode {
	var n schemaNode
	if s.doc != "" {
		n = append(n, schemaPair{"description", s.doc})
	}
	if s.def != "" {
		n = append(n, schemaPair{"default", s.defaultValue()})
	}
	if s.example != "" && s.scalar() {
		n = append(n, schemaPair{"examples", []string{strings.Trim(s.example, `"`)}})
	}
	switch s.kind {
	case kindObject, kindDict:
		body := schemaNode{{"type", s.types("object")}}
		if s.kind == kindDict {
			body = append(body, schemaPair{"additionalProperties", s.elem.schema()})
		} else {
			var props schemaNode
			required := []string{}
			for _, k := range s.keys {
				props = append(props, schemaPair{k.name, k.shape.schema()})
				if k.required {
					required = append(required, k.name)
				}
			}
			body = append(body, schemaPair{"properties", props}, schemaPair{"additionalProperties", false})
			if len(required) > 0 {
				body = append(body, schemaPair{"required", required})
			}
		}
		if s.short != nil {
			return append(n, schemaPair{"anyOf", []schemaNode{s.short.schema(), body}})
		}
		return append(n, body...)
	case kindList:
		list := schemaNode{{"type", s.types("array")}, {"items", s.elem.schema()}}
		if s.elem.scalar() {
			return append(n, schemaPair{"anyOf", []schemaNode{s.elem.schema(), list}})
		}
		return append(n, list...)
	case kindText, kindChar:
		return append(n, schemaPair{"type", []string{"string", "number", "boolean"}})
	case kindSQL:
		return append(n, schemaPair{"type", []string{"string", "number", "boolean"}})
	case kindType:
		return append(n, schemaPair{"type", "string"})
	case kindInt:
		return append(n, schemaPair{"anyOf", []schemaNode{{{"type", "integer"}, {"minimum", s.min}, {"maximum", s.max}}, reference}})
	case kindBool:
		return append(n, schemaPair{"anyOf", []schemaNode{{{"type", "boolean"}}, {{"enum", []string{"on", "off", "yes", "no"}}}, reference}})
	case kindChoice:
		values := make([]any, 0, len(s.enum)+2)
		for _, e := range s.enum {
			values = append(values, e)
			if e == "true" || e == "false" {
				values = append(values, e == "true")
			}
		}
		return append(n, schemaPair{"anyOf", []schemaNode{{{"enum", values}}, reference}})
	case kindDuration:
		return append(n, schemaPair{"anyOf", []schemaNode{{{"type", "string"}, {"pattern", `^([0-9]+d|([0-9.]+(ns|us|µs|ms|s|m|h))+)$`}}, reference}})
	case kindSize:
		return append(n, schemaPair{"anyOf", []schemaNode{{{"type", "integer"}, {"minimum", s.min}}, {{"type", "string"}, {"pattern", `^[0-9_]+ ?([kKmMgGtT]?[iI]?[bB])?$`}}, reference}})
	}
	return n
}

func (s *shape) types(t string) any {
	if s.nullable {
		return []string{t, "null"}
	}
	return t
}

func (s *shape) defaultValue() any {
	switch s.kind {
	case kindInt:
		if i, err := strconv.ParseInt(s.def, 10, 64); err == nil {
			return i
		}
	case kindBool:
		return s.def == "true" || s.def == "on"
	}
	return s.def
}
