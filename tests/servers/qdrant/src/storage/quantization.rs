//! Quantization settings, in the engine's types.
#![expect(deprecated, reason = "`always_ram` is what the engine of this version knows")]

use qdrant_client::qdrant as pb;
use qdrant_edge::{
    BinaryQuantizationConfig, BinaryQuantizationEncoding, CompressionRatio, ProductQuantizationConfig,
    QuantizationConfig, ScalarQuantizationConfig, ScalarType,
};

use crate::error::{Error, Result};

pub fn quantization_in(config: pb::QuantizationConfig) -> Result<QuantizationConfig> {
    use pb::quantization_config::Quantization;
    match config.quantization {
        Some(Quantization::Scalar(scalar)) => Ok(QuantizationConfig::from(ScalarQuantizationConfig {
            r#type: ScalarType::Int8,
            quantile: scalar.quantile,
            always_ram: in_ram(scalar.always_ram, scalar.memory),
        })),
        Some(Quantization::Product(product)) => {
            let compression = match pb::CompressionRatio::try_from(product.compression) {
                Ok(pb::CompressionRatio::X4) => CompressionRatio::X4,
                Ok(pb::CompressionRatio::X8) => CompressionRatio::X8,
                Ok(pb::CompressionRatio::X16) => CompressionRatio::X16,
                Ok(pb::CompressionRatio::X32) => CompressionRatio::X32,
                Ok(pb::CompressionRatio::X64) => CompressionRatio::X64,
                Err(_) => return Err(Error::malformed("Unknown compression ratio")),
            };
            Ok(QuantizationConfig::from(ProductQuantizationConfig {
                compression,
                always_ram: in_ram(product.always_ram, product.memory),
            }))
        }
        Some(Quantization::Binary(binary)) => {
            if binary.query_encoding.is_some() {
                return Err(Error::unimplemented("the query encoding of binary quantization"));
            }
            let encoding = match binary.encoding.map(pb::BinaryQuantizationEncoding::try_from) {
                None => None,
                Some(Ok(pb::BinaryQuantizationEncoding::OneBit)) => Some(BinaryQuantizationEncoding::OneBit),
                Some(Ok(pb::BinaryQuantizationEncoding::TwoBits)) => Some(BinaryQuantizationEncoding::TwoBits),
                Some(Ok(pb::BinaryQuantizationEncoding::OneAndHalfBits)) => {
                    Some(BinaryQuantizationEncoding::OneAndHalfBits)
                }
                Some(Err(_)) => return Err(Error::malformed("Unknown binary encoding")),
            };
            Ok(QuantizationConfig::from(BinaryQuantizationConfig {
                always_ram: in_ram(binary.always_ram, binary.memory),
                encoding,
                query_encoding: None,
            }))
        }
        Some(Quantization::Turboquant(_)) => Err(Error::unimplemented("turbo quantization")),
        None => Err(Error::malformed("Quantization type is not specified")),
    }
}

fn in_ram(always_ram: Option<bool>, memory: Option<i32>) -> Option<bool> {
    match memory.map(pb::Memory::try_from) {
        Some(Ok(pb::Memory::Cold)) => Some(false),
        Some(Ok(pb::Memory::Cached | pb::Memory::Pinned)) => Some(true),
        _ => always_ram,
    }
}
