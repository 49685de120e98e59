package monthfile

import (
	"encoding/binary"
	"math/bits"
)

// appendPacked appends vals packed with w bits each, least significant bit
// first, as both the hybrid and the delta encoding store them. The last byte is
// filled up with zero bits. w is 0 to 64 and every value fits into it.
func appendPacked(dst []byte, vals []uint64, w int) []byte {
	switch w {
	case 0:
		return dst
	case 8:
		for _, v := range vals {
			dst = append(dst, byte(v))
		}
		return dst
	case 16:
		for _, v := range vals {
			dst = binary.LittleEndian.AppendUint16(dst, uint16(v))
		}
		return dst
	case 32:
		for _, v := range vals {
			dst = binary.LittleEndian.AppendUint32(dst, uint32(v))
		}
		return dst
	}
	var acc uint64
	n := 0 // bits of acc in use, < 64
	for _, v := range vals {
		acc |= v << n
		n += w
		if n >= 64 {
			dst = binary.LittleEndian.AppendUint64(dst, acc)
			n -= 64
			acc = v >> (w - n) // the bits that did not fit; none if n is 0, as v < 1<<w
		}
	}
	for ; n > 0; n -= 8 {
		dst = append(dst, byte(acc))
		acc >>= 8
	}
	return dst
}

// unpack reads len(out) values of w bits each, 0 to 64, from the start of src,
// which holds at least packedLen(len(out), w) bytes.
func unpack[T uint32 | uint64](out []T, src []byte, w int) {
	switch w {
	case 0:
		clear(out)
		return
	case 8:
		src = src[:len(out)]
		for i, b := range src {
			out[i] = T(b)
		}
		return
	case 16:
		src = src[:2*len(out)]
		for i := range out {
			out[i] = T(binary.LittleEndian.Uint16(src[2*i:]))
		}
		return
	}
	mask := ^uint64(0) >> (64 - w)
	i, bit := 0, 0
	// Whole words at a time while there are nine bytes to read from.
	if w <= 57 {
		for ; i < len(out) && bit>>3+8 <= len(src); i++ {
			out[i] = T(binary.LittleEndian.Uint64(src[bit>>3:]) >> (bit & 7) & mask)
			bit += w
		}
	} else {
		for ; i < len(out) && bit>>3+9 <= len(src); i++ {
			lo := binary.LittleEndian.Uint64(src[bit>>3:]) >> (bit & 7)
			hi := uint64(src[bit>>3+8]) << (64 - bit&7) // shifted out entirely when bit&7 is 0
			out[i] = T((lo | hi) & mask)
			bit += w
		}
	}
	for ; i < len(out); i++ {
		var v uint64
		for k := 0; k < w; {
			take := min(8-bit&7, w-k)
			v |= uint64(src[bit>>3]>>(bit&7)) & (1<<take - 1) << k
			k += take
			bit += take
		}
		out[i] = T(v)
	}
}

// packedLen is the number of bytes that n values of w bits take. It does not
// overflow for n < 1<<40.
func packedLen(n, w int) int { return (n*w + 7) / 8 }

// widthOf is the number of bits that v needs.
func widthOf(v uint64) int { return bits.Len64(v) }
