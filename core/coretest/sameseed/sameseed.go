// Package sameseed has the property tests of the package whose tests import it
// try the same values in each run, so that the same tree passes or fails each
// time. -rapid.seed=0 makes them try others, as make fuzz does. Fuzz does the
// same for fuzz targets.
package sameseed

import (
	"flag"

	_ "pgregory.net/rapid" // its init declares the flag before ours runs
)

func init() {
	if err := flag.Set("rapid.seed", "1"); err != nil {
		panic(err)
	}
}
