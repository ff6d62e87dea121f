package delta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
)

// ErrClustered says that an operation does not fit the way a table is clustered.
var ErrClustered = errors.New("clustering")

// Clustering (PROTOCOL.md, "Clustered Table"): the domain delta.clustering names the columns; which files are clustered,
// and by whom, is told by clusteringProvider and tags, whose meaning is each implementation's own. Here each group of
// files that were sorted together is a cube, as with Spark, whose tags' names are used: ZCUBE_ID and ZCUBE_ZORDER_BY.
// OPTIMIZE clusters the files that are in no cube yet, together with the small cubes that are left of earlier calls;
// large cubes stay as they are, so that its cost follows what has been written since, not the table. Files that another
// implementation has clustered are left to it, unless everything is to be clustered anew.
const (
	clusteringDomain   = "delta.clustering"
	clusteringProvider = "cauce"
	tagCube            = "ZCUBE_ID"
	tagCubeColumns     = "ZCUBE_ZORDER_BY"
	tagCubeCurve       = "ZCUBE_ZORDER_CURVE"
	// cubeBytes is the size from which a cube is not touched any more.
	cubeBytes = zorderInputBytes / 2
)

// ClusterBy lists the columns by which the table is clustered, none if it is not. ErrUnsupported for columns inside of
// structs.
func (s *Snapshot) ClusterBy() ([]string, error) {
	d, ok := s.Domain(clusteringDomain)
	if !ok {
		return nil, nil
	}
	var c struct {
		ClusteringColumns [][]string `json:"clusteringColumns"`
	}
	if err := json.Unmarshal([]byte(d.Configuration), &c); err != nil {
		return nil, fmt.Errorf("%s version %d: %w: domain %s: %w", s.table, s.version, ErrCorrupt, clusteringDomain, err)
	}
	var out []string
	for _, path := range c.ClusteringColumns {
		if len(path) != 1 {
			return nil, &UnsupportedError{What: "clustering by a column inside of a struct", Names: path}
		}
		found := false
		for _, f := range s.schema.Fields {
			if s.physical(f) == path[0] {
				out, found = append(out, f.Name), true
			}
		}
		if !found {
			return nil, fmt.Errorf("%s version %d: %w: clustering column %q is not in the schema", s.table, s.version, ErrCorrupt, path[0])
		}
	}
	return out, nil
}

// cubeOf is the cube that a file lies in; "" if it lies in none of these columns.
func cubeOf(a *Add, columns string) string {
	id, by := a.Tags[tagCube], a.Tags[tagCubeColumns]
	if id == nil || by == nil || *by != columns || a.ClusteringProvider == nil || *a.ClusteringProvider != clusteringProvider {
		return ""
	}
	return *id
}

// planClusters groups the files that are to be clustered.
func (s *Snapshot) planClusters(ctx context.Context, o OptimizeOptions, columns []string) ([]*bin, error) {
	by := quoteJSON(columns)
	cubes := map[string][]*Add{}
	sizes := map[string]int64{}
	var pick []*Add
	for _, a := range s.Prune(o.Where) {
		cube := cubeOf(a, by)
		foreign := a.ClusteringProvider != nil && *a.ClusteringProvider != clusteringProvider
		switch {
		case o.Full:
			pick = append(pick, a)
		case foreign:
		case cube == "" || markedShare(a) > optimizeVectorShare:
			pick = append(pick, a)
		default:
			cubes[cube] = append(cubes[cube], a)
			sizes[cube] += a.Size
		}
	}
	if len(pick) == 0 {
		return nil, nil
	}
	for _, id := range sortedKeys(cubes) {
		if sizes[id] < cubeBytes {
			pick = append(pick, cubes[id]...)
		}
	}
	// Files of near values go into one bin, as far as the statistics tell.
	first, _ := s.schema.Field(columns[0])
	least := make(map[*Add]*valueBound, len(pick))
	for _, a := range pick {
		if c := s.addFacts(a).column(first.Name); c != nil {
			least[a] = c.min
		}
	}
	sort.SliceStable(pick, func(i, j int) bool {
		x, y := least[pick[i]], least[pick[j]]
		if x == nil || y == nil {
			return x == nil && y != nil
		}
		d, _ := x.lo.compare(y.lo)
		return d < 0
	})
	var bins []*bin
	for len(pick) > 0 {
		b := &bin{cube: s.table.opts.NewID()}
		var group []*Add
		for len(pick) > 0 && (len(group) == 0 || b.bytes+pick[0].Size <= zorderInputBytes) {
			group = append(group, pick[0])
			b.bytes += pick[0].Size
			pick = pick[1:]
		}
		var err error
		if b.files, err = s.load(ctx, group); err != nil {
			return nil, err
		}
		bins = append(bins, b)
	}
	return bins, nil
}

// markClustered writes down that a new file belongs to a cube.
func (o *OptimizeOptions) markClustered(a *Add, cube string) {
	provider, by, curve := clusteringProvider, quoteJSON(o.clusterBy), "zorder"
	a.ClusteringProvider = &provider
	a.Tags = map[string]*string{tagCube: &cube, tagCubeColumns: &by, tagCubeCurve: &curve}
}

// clusterColumnsMax is how many clustering columns a table may have, as with Spark.
const clusterColumnsMax = 4

// clusteringOf is the domain that has a table clustered by columns, by none if there are none.
func clusteringOf(s *Schema, partitionBy, columns []string) (DomainMetadata, error) {
	paths := [][]string{}
	if len(columns) > clusterColumnsMax {
		return DomainMetadata{}, &AlterError{Class: "DELTA_CLUSTER_BY_INVALID_NUM_COLUMNS",
			Reason: fmt.Sprintf("a table is clustered by at most %d columns, not %d", clusterColumnsMax, len(columns))}
	}
	seen := map[string]bool{}
	for _, c := range columns {
		f, ok := s.Field(c)
		if !ok {
			return DomainMetadata{}, fmt.Errorf("%w: clustering column %q", ErrNoSuchColumn, c)
		}
		if seen[f.Name] {
			return DomainMetadata{}, fmt.Errorf("%w: clustering column %q stands twice", ErrSchema, c)
		}
		seen[f.Name] = true
		switch f.Type {
		case String, Long, Integer, Short, Byte, Float, Double, Date, Timestamp, TimestampNTZ:
		default:
			if _, ok := f.Type.(Decimal); !ok {
				return DomainMetadata{}, &AlterError{Class: "DELTA_CLUSTERING_COLUMNS_DATATYPE_NOT_SUPPORTED", Column: f.Name,
					Reason: fmt.Sprintf("statistics of type %s say nothing to cluster by", f.Type)}
			}
		}
		paths = append(paths, []string{f.PhysicalName()})
	}
	text := plainJSON(struct {
		ClusteringColumns [][]string `json:"clusteringColumns"`
		DomainName        string     `json:"domainName"`
	}{paths, clusteringDomain})
	return DomainMetadata{Domain: clusteringDomain, Configuration: text}, nil
}
