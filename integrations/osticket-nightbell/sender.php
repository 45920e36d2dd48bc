<?php
/*
 * Posts one event, signed as Standard Webhooks (standardwebhooks.com) wants it. Knows nothing of osTicket.
 */
class NightbellSender
{
    /** Longer than Nightbell takes to write an event down, shorter than anybody notices. */
    const TIMEOUT_MS = 2000;

    /** Throws what an admin should read in the log of PHP. */
    public static function send($url, $secret, array $event)
    {
        $body = json_encode($event, JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_INVALID_UTF8_SUBSTITUTE);
        $id = 'osticket-' . bin2hex(random_bytes(16));
        $headers = array('Content-Type: application/json');
        foreach (self::sign($secret, $id, time(), $body) as $name => $value) {
            $headers[] = "$name: $value";
        }
        $call = curl_init($url);
        curl_setopt_array($call, array(
            CURLOPT_POST              => true,
            CURLOPT_POSTFIELDS        => $body,
            CURLOPT_HTTPHEADER        => $headers,
            CURLOPT_RETURNTRANSFER    => true,
            CURLOPT_FOLLOWLOCATION    => false,
            CURLOPT_CONNECTTIMEOUT_MS => self::TIMEOUT_MS,
            CURLOPT_TIMEOUT_MS        => self::TIMEOUT_MS,
            CURLOPT_PROTOCOLS         => CURLPROTO_HTTP | CURLPROTO_HTTPS,
        ));
        $answered = curl_exec($call);
        $status = curl_getinfo($call, CURLINFO_RESPONSE_CODE);
        $error = curl_error($call);
        curl_close($call);
        if ($answered === false) {
            throw new RuntimeException($error);
        }
        if ($status < 200 || $status > 299) {
            throw new RuntimeException("it answered HTTP $status");
        }
    }

    /** The headers that prove who sends this. The key is the base64 behind `whsec_`; id, time and body are signed. */
    public static function sign($secret, $id, $time, $body)
    {
        $key = base64_decode(preg_replace('/^whsec_/', '', $secret), true);
        if ($key === false || $key === '') {
            throw new RuntimeException('its secret is no base64: copy it again');
        }
        $signature = base64_encode(hash_hmac('sha256', "$id.$time.$body", $key, true));
        return array(
            'Webhook-Id'        => $id,
            'Webhook-Timestamp' => (string) $time,
            'Webhook-Signature' => "v1,$signature",
        );
    }
}
